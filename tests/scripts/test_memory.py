"""scripts.memory: what it counts is what PyTorch allocates, and what the networks are known to need."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import KEEP_NET, NET, ROOT
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile

from keep.archs.keep import KEEP
from keep.archs.vqgan import VQGAN, Sizes
from keep.config.cli import run
from keep.config.reading import load
from keep.config.schema import TrainConfig
from keep.losses.perceptual import LPIPS
from keep.models.base import freeze, trainable
from keep.training.guards import checkpoint_options
from keep.utils import downloads
from scripts import memory
from scripts.memory_count import (
    LiveBytes,
    StepCounter,
    autocast_as_on_cuda,
    fake_batch,
    run_step,
    size_of,
    without_weight_files,
)

GIB = 2**30


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No weights in the caches, and no download."""
    monkeypatch.setenv("KEEP_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(downloads.urllib.request, "urlopen", lambda *_, **__: pytest.fail("a download"))


def config(stage: int, *more: str) -> TrainConfig:
    """The tiny options at 32×32."""
    sizes = NET if stage == 1 else KEEP_NET
    return load(ROOT / f"options/tiny/stage{stage}.yml", [*sizes, *more], TrainConfig)


def allocated(config: TrainConfig, clips: int, frames: int) -> int:
    """Peak of the bytes that a real step allocates on the CPU."""
    with without_weight_files():
        recipe = config.model.build().train()
    for p in trainable(recipe):
        p.grad = torch.zeros_like(p)
    torch.manual_seed(0)
    batch = fake_batch(recipe, clips, frames, config.model.options["net"].options["image_size"])

    def step() -> None:
        data = {k: v.uniform_(-1, 1).clone() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        run_step(recipe, config.train, data)

    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    assert recorded.profiler is not None
    results: Any = recorded.profiler.kineto_results
    events = [e for e in results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


@pytest.mark.parametrize(
    ("stage", "more"),
    [
        (1, ["model.net.image_size=64", "model.net.attn_resolutions=[16]"]),  # at 32×32 the kernels' own memory counts
        (2, ["model.checkpoint_encoder=true"]),
        (3, ["model.checkpoint_decoder=false"]),
        (3, ["model.checkpoint_decoder=true", "model.perceptual={type: LPIPS, net: squeeze, checkpoint: true}"]),
    ],
)
def test_the_counted_peak_is_what_a_step_allocates(stage: int, more: list[str]) -> None:
    options = config(stage, *more)
    clips, frames = (3, 1) if stage == 1 else (2, 4)
    counted = StepCounter(options).count(clips, frames).activations
    assert counted == pytest.approx(allocated(options, clips, frames), rel=0.05)


def test_the_figures_of_the_released_network() -> None:
    """Float32, one frame of 512×512."""
    with FakeTensorMode(), without_weight_files():
        frame = torch.empty(1, 3, 512, 512)
        autoencoder, net, loss = VQGAN(Sizes()), KEEP(Sizes()), LPIPS()
        with LiveBytes() as live:
            kept = autoencoder(frame)
            assert live.now / GIB == pytest.approx(3.17, abs=0.01)
            del kept
            assert live.now == 0
        with LiveBytes() as live:
            _, features = net.lq_encoder(frame)
            assert live.now / GIB == pytest.approx(1.36, abs=0.01)
        freeze(net)
        net.cft.requires_grad_(True)
        net.cfa.requires_grad_(True)
        features = {scale: feature.detach() for scale, feature in features.items()}
        code = torch.empty(1, 256, 16, 16)
        before = {scale: torch.empty(1, 256 if scale == 32 else 512, scale, scale) for scale in (16, 32)}
        with LiveBytes() as live:
            net.decode(code, features, before)[0].sum().backward()
        assert (live.peak + size_of(trainable(net))) / GIB == pytest.approx(2.12, abs=0.01)  # with their gradients
        with LiveBytes() as live:
            kept = loss(frame.clone().requires_grad_(), frame)
        weights = size_of(list(loss.parameters()))
        assert (live.now + weights) / GIB == pytest.approx(0.65, abs=0.01)
        del kept


def test_autocast_keeps_in_float32_what_cuda_does() -> None:
    """GroupNorm's input and SiLU's in float32, the convolution's in bfloat16: 10 bytes a number in place of 12."""
    layers = torch.nn.Sequential(torch.nn.GroupNorm(1, 4), torch.nn.SiLU(), torch.nn.Conv2d(4, 4, 1, bias=False))
    x = torch.zeros(1, 4, 64, 64, dtype=torch.bfloat16)
    precisions = []
    with autocast_as_on_cuda(), torch.autocast("cpu", torch.bfloat16):
        for layer in layers:
            x = layer(x)
            precisions.append(x.dtype)
    assert precisions == [torch.float32, torch.float32, torch.bfloat16]
    with torch.autocast("cpu", torch.bfloat16):
        assert layers[0](x).dtype == torch.bfloat16  # the CPU's own rules again


def test_weights_are_counted_to_the_byte() -> None:
    found = StepCounter(config(3)).count(1, 2)
    with without_weight_files():
        recipe = config(3).model.build()
    everything = size_of([*recipe.parameters(), *recipe.buffers()])
    assert found.weights == found.gradients == found.moments / 2 == size_of(trainable(recipe))
    assert found.weights + found.frozen == everything
    assert found.ema == size_of(trainable(recipe.net))
    assert found.total == found.fixed + found.activations


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_more_clips_are_predicted_from_one_count(stage: int) -> None:
    counter = StepCounter(config(stage, "train.amp=bf16"))
    one, three = (counter.count(clips, 1 if stage == 1 else 3, "bf16") for clips in (1, 3))
    assert one.shared > 0  # weights in bfloat16
    assert one.shared + 3 * (one.activations - one.shared) == pytest.approx(three.activations, rel=0.03)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_checkpointing_is_switched_as_by_the_options(stage: int) -> None:
    perceptual = ["model.perceptual={type: LPIPS, net: squeeze}"] if stage != 2 else []
    plain = config(stage, *perceptual, *(["model.checkpoint_decoder=false"] if stage == 3 else []))
    options = checkpoint_options(plain.model)
    assert (
        list(options)
        == {
            1: ["model.perceptual.checkpoint"],
            2: ["model.checkpoint_encoder"],
            3: ["model.checkpoint_decoder", "model.perceptual.checkpoint"],
        }[stage]
    )
    on = config(stage, *perceptual, *(f"{option}=true" for option in options))
    size = (2, 1) if stage == 1 else (1, 3)
    counter, recomputed = StepCounter(plain), StepCounter(on).count(*size)
    kept = counter.count(*size)
    assert counter.count(*size, None, dict.fromkeys(options, True)) == recomputed
    assert counter.count(*size, None, options) == kept
    assert recomputed.activations < 0.9 * kept.activations


def test_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "memory.md"
    file = ROOT / "options/tiny/stage2.yml"
    settings = [word for setting in KEEP_NET for word in ("--set", setting)]
    assert run(memory.main, [str(file), *settings, "--clips", "2", "--frames", "3", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert out.read_text() == text
    assert "GiB" in text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| tiny")]
    assert [row[1:4] for row in rows[1:]] == [
        ["float32", "none", "2 × 3"],
        ["float32", "checkpoint_encoder", "2 × 3"],
        ["bf16", "none", "2 × 3"],
        ["bf16", "checkpoint_encoder", "2 × 3"],
    ]
    for row in rows[1:]:
        clips = [int(cell.removesuffix(" × 3")) for cell in row[-3:]]
        assert 1000 < clips[0] < clips[1] < clips[2]


def choice(clip: float, clips: int, frames: int) -> memory.Choice:
    """A step of ``clip`` GiB a clip, beside 1 GiB that is fixed."""
    activations = round(clips * clip * GIB)
    found = memory.Memory(weights=GIB, gradients=0, moments=0, ema=0, frozen=0, activations=activations, shared=0)
    return memory.Choice("float32", "none", clips, frames, found)


@pytest.mark.parametrize(
    ("clip", "frames", "fits"),
    [(2, 8, "10 × 8"), (10.5, 8, "1 × 15"), (20, 8, "1 × 8"), (25, 8, "1 × 6"), (200, 8, "–"), (11, 1, "1 × 1")],
)
def test_the_largest_batch(clip: float, frames: int, fits: str) -> None:
    assert choice(clip, 2, frames).largest(24) == fits  # 21.6 GiB without the reserve


def test_all_shipped_options_are_in_the_default_table() -> None:
    names = {str(path.relative_to(ROOT / "options")) for path in memory.parse([]).options}
    assert {"train/stage1_vqgan.yml", "train/stage2_kalman.yml", "train/stage3_video.yml"} <= names
    assert {"small/stage3.yml", "nano/stage1.yml", "lite/stage2.yml"} <= names


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["missing.yml"], "cannot read the options file missing.yml"),
        (["--clips", "0"], "--clips: must be a whole number from 1"),
        ([str(ROOT / "options/tiny/stage1.yml"), "--set", "train.amp=half"], "train.amp"),
    ],
)
def test_mistakes_are_one_line(argv: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(memory.main, argv) == 2
    assert line in capsys.readouterr().err
