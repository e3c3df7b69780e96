"""The training loop: three stages in sequence, phases, resume, EMA, and runs that must not start."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import ranks
import torch
from tiny_runs import KEEP_NET, NET, ROOT, options_and_start

from keep import train as keep_train
from keep.config.reading import load
from keep.config.registry import build
from keep.config.schema import TrainConfig
from keep.evaluation.evaluate import evaluate
from keep.losses.pixel import L1
from keep.training import checkpoint, dry_run, trainer, validation
from keep.training.distributed import Ranks
from keep.training.ema import EMA
from keep.training.guards import out_of_memory
from keep.training.optimizers import Adam
from keep.training.prefetch import step_batches
from keep.training.records import RunLog
from keep.training.run import build_run, check_data, split_step
from keep.training.schedules import Constant, Cosine, CosineRestart, MultiStep
from keep.utils import weight_files
from keep.utils.errors import UserError
from keep.utils.io import write_file
from keep.utils.pictures import encode_image
from keep.utils.signals import StopRequest


def config(tiny, stage: int, *more: str) -> TrainConfig:
    path, overrides = tiny(stage, *more)
    return load(path, overrides, TrainConfig)


def run(tiny, stage: int, *more: str, resume: str | None = None) -> Path:
    return trainer.train(config(tiny, stage, *more), resume)


@pytest.fixture
def stage1(tiny) -> Path:
    return run(tiny, 1)


@pytest.fixture
def stage2(tiny, stage1: Path) -> Path:
    return run(tiny, 2)


def test_three_stages_train_one_after_another_and_touch_only_their_parts(tiny, stage1: Path, stage2: Path) -> None:
    stage3 = run(tiny, 3)
    state = {
        n: weight_files.load(folder / "models/net_latest.pth")["params"]
        for n, folder in ((1, stage1), (2, stage2), (3, stage3))
    }
    start = {
        n: weight_files.load(folder / "models/net_latest.pth")["params_ema"] for n, folder in ((1, stage1), (2, stage2))
    }

    def changed(before: dict, after: dict) -> set[str]:
        return {k.split(".")[0] for k in after if k in before and not torch.equal(before[k], after[k])}

    vqgan = {k.replace("encoder.", "hq_encoder.", 1) if k.startswith("encoder.") else k: v for k, v in start[1].items()}
    assert changed(vqgan, state[2]) == set()  # E_H, codebook, generator stay stage I's
    assert changed({k.replace("hq_", "lq_", 1): v for k, v in vqgan.items()}, state[2]) == {"lq_encoder"}
    assert changed(start[2], state[3]) == {"cft", "cfa"}


def test_a_run_s_folder_holds_options_logs_and_checkpoints(stage1: Path) -> None:
    names = {p.relative_to(stage1).as_posix() for p in stage1.rglob("*") if p.is_file()}
    assert {"options.yml", "train.log", "log.jsonl", "models/net_latest.pth", "models/net_4.pth"} <= names
    assert {"training_states/2.state", "training_states/4.state"} <= names
    assert any(n.startswith("tb/events") for n in names)
    records = [json.loads(line) for line in (stage1 / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == [1, 2, 3, 4]
    assert "loss/gan" not in records[1]
    assert {"loss/gan", "loss/d"} <= records[2].keys()  # gan_start=2: the third step is the first with it
    assert load(stage1 / "options.yml", [], TrainConfig).train.iters == 4


def test_a_resumed_run_ends_in_the_same_weights(tiny) -> None:
    stage1 = run(tiny, 1, "model.revive=1")
    uninterrupted = weight_files.load(stage1 / "models/net_4.pth")
    assert run(tiny, 1, "model.revive=1", resume=str(stage1 / "training_states/2.state")) == stage1
    (aside,) = stage1.glob("left_*")  # what the first run wrote after step 2
    assert {p.name for p in aside.iterdir()} == {"4.state", "net_4.pth", "net_4.safetensors"}
    records = [json.loads(line)["step"] for line in (stage1 / "log.jsonl").read_text().splitlines()]
    assert records == [1, 2, 3, 4]
    again = weight_files.load(stage1 / "models/net_4.pth")
    for key in ("params", "params_ema"):
        assert all(torch.equal(uninterrupted[key][k], again[key][k]) for k in uninterrupted[key])


def test_resume_of_a_finished_state_or_a_foreign_file_is_refused(tiny, stage1: Path) -> None:
    with pytest.raises(UserError, match=r"is at step 4, and train.iters is 4"):
        run(tiny, 1, resume=str(stage1 / "training_states/4.state"))
    with pytest.raises(UserError, match="not a training state"):
        run(tiny, 1, resume=str(stage1 / "models/net_4.pth"))
    changed = trainer.build_run(config(tiny, 1, "model.discriminator=null", "model.gan=null"), start=False)
    with pytest.raises(UserError, match=r"another network than VQGANModel: discriminator"):
        checkpoint.resume(changed, stage1 / "training_states/2.state", allow_changed=True)


def test_pruning_keeps_the_newest_also_after_resuming_from_an_older_step(tiny) -> None:
    folder = run(tiny, 1, "log.save_interval=1", "log.keep_last=2")
    states = folder / "training_states"
    assert {p.name for p in states.iterdir()} == {"3.state", "4.state"}
    run(tiny, 1, "log.save_interval=1", "log.keep_last=1", "train.iters=5", resume=str(states / "3.state"))
    assert {p.name for p in states.iterdir()} == {"5.state"}


def test_an_average_turned_on_at_resume_starts_from_the_loaded_weights(tiny) -> None:
    folder = run(tiny, 1, "train.ema=0")
    path, overrides = tiny(1, "train.ema=0.9")
    started = trainer.build_run(load(path, overrides, TrainConfig), start=False)
    checkpoint.resume(started, folder / "training_states/2.state", allow_changed=True)
    assert started.ema is not None
    live = dict(started.recipe.net.named_parameters())
    assert all(torch.equal(v, live[k]) for k, v in started.ema.state_dict().items() if isinstance(v, torch.Tensor))


def test_an_older_run_of_the_same_name_is_moved_aside(tiny, stage1: Path) -> None:
    run(tiny, 1)
    aside = [p for p in stage1.parent.iterdir() if p.name.startswith("stage1_archived_")]
    assert len(aside) == 1
    assert (aside[0] / "models/net_4.pth").is_file()


def test_a_frozen_part_without_weights_stops_the_run_before_it_writes(tiny, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs stage I's VQGAN, but there is no file .*set pretrained\.vqgan"):
        run(tiny, 2)
    path, overrides = tiny(3)
    config = load(path, overrides, TrainConfig).model_copy(update={"pretrained": {}})
    with pytest.raises(UserError, match=r"needs stage II's KEEP: set pretrained\.keep"):
        trainer.train(config)
    with pytest.raises(UserError, match="did you mean 'vqgan'"):
        run(tiny, 2, "pretrained.vqgen=x.pth")
    assert not (tmp_path / "experiments").exists()


def test_a_checkpoint_of_another_network_is_refused_with_names(tiny, stage1: Path) -> None:
    with pytest.raises(UserError, match=r"weights of another network .*codebook\.embedding\.weight is 16×8, not 32×8"):
        run(tiny, 2, "model.net.codebook_size=32")


def test_dry_run_runs_every_phase_and_writes_nothing(tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, overrides = tiny(1)
    with caplog.at_level("INFO", "keep"):
        dry_run.dry_run(load(path, overrides, TrainConfig))
    text = caplog.text
    assert "start (step 0)" in text
    assert "adversarial (step 2)" in text
    assert not (tmp_path / "experiments").exists()


@pytest.mark.parametrize("kind", ["VideoClips", "FrameFolders", "ImageFolder", "Mixed"])
def test_dry_run_fills_no_cache(tiny, clips: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "data"
    if kind in ("VideoClips", "Mixed"):
        shutil.copytree(clips, root)
    else:
        for i in range(5):
            write_file(root / f"clip/{i}.png", encode_image(np.full((32, 32, 3), i, np.uint8), "png"))
    for path in (*root.rglob("*"), root):  # the index leaves out what has just changed
        os.utime(path, (1e9, 1e9))
    monkeypatch.setenv("KEEP_HOME", str(tmp_path / "home"))
    noise = "[{type: GaussianNoise}]"
    own = f"root: {root}, lq_cache: {tmp_path / 'lq'}, degradation: {noise}"
    length = 1 if kind == "ImageFolder" else 3
    data = f"{{type: {kind}, size: 32, clip_length: {length}, {own}}}"
    if kind == "Mixed":
        data = f"{{type: Mixed, size: 32, clip_length: 3, datasets: [{{type: VideoClips, {own}}}]}}"
    path, overrides = tiny(1, "data={workers: 0}", f"data.train={data}", "data.clips_per_step=1")
    before = sorted(p for p in tmp_path.rglob("*") if p.name != "__pycache__")
    dry_run.dry_run(load(path, overrides, TrainConfig))
    assert sorted(tmp_path.rglob("*")) == before


def test_dry_run_without_data_warns_and_uses_random_clips(tiny, stage1: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, overrides = tiny(2, "data.train.root=nowhere", "data.train.clip_length=5")
    with caplog.at_level("INFO", "keep"):
        dry_run.dry_run(load(path, overrides, TrainConfig))
    assert "data.train.root: nowhere does not exist" in caplog.text
    assert "random clips" in caplog.text
    assert "one clip of at most 2 frames" in caplog.text


def test_a_loss_that_is_not_finite_stops_the_run_and_is_named(tiny, monkeypatch) -> None:
    nan_in_step(monkeypatch, 2)
    with pytest.raises(UserError, match=r"step \d: not finite: loss term pixel of disc\d \(position \d\)"):
        run(tiny, 1)


def nan_in_step(monkeypatch: pytest.MonkeyPatch, step: int) -> list[int]:
    """Make the L1 of that step NaN; returns the steps that the trainer makes from now on."""
    real, loss, steps = trainer.train_step, L1.forward, []

    def counted(run: trainer.Run, batches: Any) -> Any:
        steps.append(run.step + 1)
        factor = float("nan") if run.step + 1 == step else 1.0
        monkeypatch.setattr(L1, "forward", lambda *a: loss(*a) * factor)
        return real(run, batches)

    monkeypatch.setattr(trainer, "train_step", counted)
    return steps


def test_a_nan_is_read_a_step_later_and_named_as_if_read_at_once(tiny, monkeypatch) -> None:
    messages = []
    for interval, made in ((1, [1, 2, 3]), (100, [1, 2, 3, 4])):
        with monkeypatch.context() as patch:
            steps = nan_in_step(patch, 3)
            with pytest.raises(UserError) as error:
                run(
                    tiny,
                    1,
                    f"log.interval={interval}",
                    "log.image_interval=100",
                    "log.save_interval=100",
                    "train.iters=9",
                )
        assert steps == made
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    assert messages[0].startswith("step 3: not finite: loss term pixel of disc")
    assert "(position 2)" in messages[0]


def test_no_checkpoint_holds_weights_after_a_nan_and_the_last_one_resumes_exactly(tiny, monkeypatch) -> None:
    quiet = ["log.interval=100", "log.image_interval=100"]
    folder = run(tiny, 1, *quiet)
    uninterrupted = weight_files.load(folder / "models/net_4.pth")
    for save_interval in (1, 2):  # a checkpoint is due after the step with the NaN, and after the next one
        with monkeypatch.context() as patch:
            nan_in_step(patch, 3)
            with pytest.raises(UserError, match="step 3: not finite"):
                run(tiny, 1, *quiet, f"log.save_interval={save_interval}")
        assert max(int(p.stem) for p in folder.rglob("*.state")) == 2
        assert max(int(p.stem.removeprefix("net_")) for p in folder.rglob("net_[0-9]*.pth")) == 2
    run(tiny, 1, *quiet, resume="auto")
    resumed = weight_files.load(folder / "models/net_4.pth")
    for key in ("params", "params_ema"):
        assert all(torch.equal(v, resumed[key][k]) for k, v in uninterrupted[key].items())


def test_validation_is_logged_with_the_weights_it_used(tiny, clips: Path) -> None:
    val = f"{{type: VideoClips, root: {clips}, size: 32, max_frames: 3}}"
    folder = run(tiny, 1, f"data.val={val}", "val.metrics=[PSNR, SSIM]", "val.interval=2")
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    scores = [r for r in records if "val/PSNR (ema)" in r]
    assert [r["step"] for r in scores] == [2, 4]
    assert 0 < scores[-1]["val/PSNR (ema)"] < 60


def test_bad_clips_that_the_data_skips_are_logged_and_counted(tiny, tmp_path: Path, caplog) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), np.uint8)
    for clip in ("a", "b"):
        (tmp_path / "data" / clip).mkdir(parents=True)
        for t, frame in enumerate(frames):
            cv2.imwrite(str(tmp_path / f"data/{clip}/{t:05d}.png"), frame)
    (tmp_path / "data/b/00001.png").write_text("no image")
    options = ("data.train.type=FrameFolders", f"data.train.root={tmp_path / 'data'}", "data.train.clip_length=3")
    with pytest.raises(UserError, match=r"00001\.png"):
        run(tiny, 1, *options)
    ended = run(tiny, 1, *options, "data.train.on_bad=skip")
    assert caplog.text.count("warning: skipped ") == 1
    records = [json.loads(line) for line in (ended / "log.jsonl").read_text().splitlines()]
    assert max(r.get("data/skipped", 0) for r in records) == 2  # two epochs of two clips


def test_revived_codes_stay_in_use(tiny) -> None:
    folder = run(tiny, 1, "model.revive=2")
    state = weight_files.load(folder / "training_states/4.state")
    assert "chosen" in state["recipe"]


def test_ema_moves_towards_the_weights_and_swaps_in_and_out() -> None:
    net = torch.nn.Linear(2, 2)
    before = net.weight.detach().clone()
    ema = EMA(net, 0.9)
    with torch.no_grad():
        net.weight += 1
    ema.update()  # the first update's decay is 1/10
    with ema.applied():
        torch.testing.assert_close(net.weight, before + 0.9)
    torch.testing.assert_close(net.weight, before + 1)


def test_a_part_has_its_own_learning_rate_and_a_wrong_part_is_named(tiny, stage1: Path) -> None:
    path, overrides = tiny(2, "train.lr_scale={kalman_filter: 0, lq_encoder: 0.5}", "train.warmup=0")
    started = trainer.build_run(load(path, overrides, TrainConfig))
    before = {k: v.clone() for k, v in started.recipe.net.state_dict().items()}
    trainer.train_step(started, [dry_run.dry_batch(started, None)])
    after = started.recipe.net.state_dict()
    changed = {k.split(".")[0] for k in after if not torch.equal(after[k], before[k])}
    assert changed == {"lq_encoder", "code_transformer"}
    rates = [g["lr"] for g in started.optimizers["net"].param_groups]
    assert rates == pytest.approx([3e-3, 0.0, 1.5e-3])
    with pytest.raises(UserError, match=r"train\.lr_scale\.kalman: no such part .* did you mean 'kalman_filter'"):
        run(tiny, 2, "train.lr_scale={kalman: 0.1}")


PLUGIN = """
import torch
from keep.config.registry import OPTIMIZERS

@OPTIMIZERS.register({name!r})
class Descent:
    def __init__(self, {option}: float = 0.1, momentum: float = 0.0) -> None:
        self.options = {{"lr": {option}, "momentum": momentum}}

    def __call__(self, groups):
        return torch.optim.SGD(groups, **self.options)
"""


def test_an_optimizer_of_a_plugin_trains_and_resumes(tiny, tmp_path: Path) -> None:
    for name, option in (("Descent", "lr"), ("Rateless", "rate")):
        (tmp_path / f"{name}.py").write_text(PLUGIN.format(name=name, option=option))
    more = [f"plugins=[{tmp_path / 'Descent.py'}]", "train.optim={type: Descent, lr: 0.01, momentum: 0.5}"]
    folder = run(tiny, 1, *more)
    (group,) = weight_files.load(folder / "training_states/4.state")["optimizers"]["net"]["param_groups"]
    assert group["momentum"] == 0.5
    before = weight_files.load(folder / "models/net_4.pth")["params"]
    run(tiny, 1, *more, resume=str(folder / "training_states/2.state"))
    after = weight_files.load(folder / "models/net_4.pth")["params"]
    assert all(torch.equal(v, after[k]) for k, v in before.items())
    with pytest.raises(UserError, match="optimizer Rateless: it needs an option lr"):
        run(tiny, 1, f"plugins=[{tmp_path / 'Rateless.py'}]", "train.optim={type: Rateless}")


def test_schedules() -> None:
    assert Constant()(2.0, 7, 10) == 2.0
    step = MultiStep((3, 6), 0.5)
    assert [step(1.0, s, 9) for s in (0, 2, 3, 5, 6)] == [1, 1, 0.5, 0.5, 0.25]
    cosine = Cosine(0.1)
    assert cosine(1.0, 0, 11) == 1.0
    assert cosine(1.0, 5, 11) == pytest.approx(0.55)
    assert cosine(1.0, 10, 11) == pytest.approx(0.1)
    restart = CosineRestart((4, 2), (1.0, 0.5), 0.1)
    expected = {0: 1.0, 2: 0.55, 4: 0.55, 5: 0.325, 6: 0.1, 9: 0.1}  # .1 + .9 · ½ at the restart in step 4
    assert {s: restart(1.0, s, 7) for s in expected} == pytest.approx(expected)
    with pytest.raises(UserError, match="1 values for 2 periods"):
        CosineRestart((4, 2), (1.0,))


def test_learning_rate_warms_up_and_follows_the_schedule(tiny) -> None:
    folder = run(tiny, 1, "train.warmup=1", "train.optim.lr=1e-3", "train.schedule={type: Constant}")
    rates = [json.loads(line)["lr/net"] for line in (folder / "log.jsonl").read_text().splitlines()]
    np.testing.assert_allclose(rates, [0.5e-3, 1e-3, 1e-3, 1e-3])


def step_of(config: TrainConfig, count: int = 1) -> tuple[trainer.Run, trainer.StepReport]:
    """A run that has made its first step, on its first clips."""
    started = trainer.build_run(config)
    batches, _ = next(step_batches(started, build(config.data.train)))
    return started, trainer.train_step(started, batches)


def test_accumulated_batches_give_what_one_large_batch_gives(clips: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Adam, "kind", staticmethod(ranks.sgd))
    states = []
    for at_once in (2, 1):
        more = ["data.clips_per_step=2", f"data.clips_at_once={at_once}", "model.gan_start=0", "train.grad_clip=1"]
        # Batch norm and the adaptive weight depend on the batch, so they differ for accumulated batches.
        alike = ["model.discriminator.norm=instance", "model.adaptive=false", "train.optim.lr=0.1"]
        path, overrides = options_and_start(1, clips, tmp_path, *more, *alike)
        started, report = step_of(load(path, overrides, TrainConfig))
        states.append(started.recipe.state_dict() | {f"term {k}": v for k, v in report.terms.items()})
    start = trainer.build_run(load(path, overrides, TrainConfig)).recipe.state_dict()
    assert not torch.equal(states[0]["net.encoder.blocks.0.weight"], start["net.encoder.blocks.0.weight"])
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=1e-4, atol=1e-6, msg=key)


@pytest.mark.parametrize(
    "more",
    [
        ["train.amp=bf16", "train.channels_last=true"],
        ["train.amp=bf16", "model.checkpoint_decoder=true", "train.optim.fused=true"],
        ["train.on_nonfinite=skip", "train.grad_clip=0.5"],
    ],
)
def test_speed_options_train_to_about_the_same_loss(more: list[str], clips: Path, tmp_path: Path) -> None:
    path, overrides = options_and_start(3, clips, tmp_path, "model.gan_start=0")
    _, plain = step_of(load(path, overrides, TrainConfig))
    started, report = step_of(load(path, [*overrides, *more], TrainConfig))
    assert report.terms.keys() == plain.terms.keys() == {"pixel", "temporal", "gan", "d"}
    for name, value in report.terms.items():
        assert value.item() == pytest.approx(plain.terms[name].item(), rel=0.1, abs=0.02)
    assert all(p.dtype == torch.float32 for p in started.recipe.parameters())


def test_recomputed_decoder_gives_the_same_gradients(clips: Path, tmp_path: Path) -> None:
    gradients = []
    for more in ("model.checkpoint_decoder=false", "model.checkpoint_decoder=true"):
        path, overrides = options_and_start(3, clips, tmp_path, more)
        started, _ = step_of(load(path, overrides, TrainConfig))
        gradients.append({k: p.grad for k, p in started.recipe.net.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(g, gradients[1][k]) for k, g in gradients[0].items())


@pytest.mark.parametrize("amp", ["null", "bf16"])
def test_recomputed_encoder_gives_the_same_gradients(clips: Path, tmp_path: Path, monkeypatch, amp: str) -> None:
    path, overrides = options_and_start(2, clips, tmp_path, f"train.amp={amp}", "data.clips_per_step=2")

    def gradients(checkpoint: str) -> dict[str, torch.Tensor]:
        started, _ = step_of(load(path, [*overrides, f"model.checkpoint_encoder={checkpoint}"], TrainConfig))
        return {k: p.grad for k, p in started.recipe.net.named_parameters() if p.grad is not None}

    plain, recomputed = gradients("false"), gradients("true")
    monkeypatch.setattr("keep.archs.keep.checkpoint", lambda function, *args, use_reentrant: function(*args))
    frame_by_frame = gradients("true")
    assert plain.keys() == recomputed.keys()
    assert all(torch.equal(g, recomputed[k]) for k, g in frame_by_frame.items())
    if amp == "null":
        for k, g in plain.items():  # summed over all frames at once: other rounding
            torch.testing.assert_close(recomputed[k], g, rtol=1e-3, atol=1e-5 * g.abs().max().item(), msg=k)


def test_frozen_parts_have_no_gradient_and_stay_in_evaluation_mode(clips: Path, tmp_path: Path) -> None:
    path, overrides = options_and_start(3, clips, tmp_path)
    started, _ = step_of(load(path, overrides, TrainConfig))
    net = started.recipe.net
    assert not net.generator.training
    assert not net.hq_encoder.training
    assert net.cft.training
    assert all(p.grad is None for k, p in net.named_parameters() if not k.startswith(("cft", "cfa")))
    started.recipe.eval()
    started.recipe.train()
    assert not net.generator.training


def test_a_network_to_compile_is_named_as_the_model_names_it(clips: Path, tmp_path: Path, monkeypatch) -> None:
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    path, overrides = options_and_start(1, clips, tmp_path, "train.compile=[net.generator, discriminator]")
    trainer.build_run(load(path, overrides, TrainConfig))
    assert compiled == ["Generator", "PatchGAN"]
    with pytest.raises(UserError, match=r"train.compile: .* no network 'net.generatr'; did you mean 'net.generator'"):
        trainer.build_run(load(path, [*overrides, "train.compile=[net.generatr]"], TrainConfig))
    path, overrides = options_and_start(3, clips, tmp_path, "train.compile=[net.cft]")
    with pytest.raises(UserError, match=r"net.cft is never called itself; name its parts: net.cft.8, net.cft.16"):
        trainer.build_run(load(path, overrides, TrainConfig))


def test_steps_that_are_not_finite_are_skipped_up_to_the_limit(clips: Path, tmp_path: Path, monkeypatch) -> None:
    path, overrides = options_and_start(1, clips, tmp_path, "train.on_nonfinite=skip", "train.max_skipped=2")
    started = trainer.build_run(load(path, overrides, TrainConfig))
    batches, _ = next(step_batches(started, build(started.config.data.train)))
    loss = L1.forward
    before = {k: v.clone() for k, v in started.recipe.net.state_dict().items()}
    monkeypatch.setattr(L1, "forward", lambda *a: loss(*a) * float("inf"))
    assert trainer.train_step(started, batches).skipped
    assert trainer.train_step(started, batches).skipped
    assert all(torch.equal(v, before[k]) for k, v in started.recipe.net.state_dict().items())
    with pytest.raises(UserError, match=r"loss term pixel of .*3 steps in a row, and train.max_skipped is 2"):
        trainer.train_step(started, batches)
    monkeypatch.setattr(L1, "forward", loss)
    assert not trainer.train_step(started, batches).skipped
    assert started.skipped == (0, 2)


def test_gradients_that_overflow_at_any_loss_scale_end_the_run(clips: Path, tmp_path: Path) -> None:
    path, overrides = options_and_start(1, clips, tmp_path, "train.ema=0.9")
    started = trainer.build_run(load(path, overrides, TrainConfig))
    started.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    batches, _ = next(step_batches(started, build(started.config.data.train)))
    for p in started.recipe.net.parameters():
        p.register_hook(lambda g: g * float("nan"))
    for _ in range(3):  # 4, 2, 1: overflows are normal with float16
        assert not trainer.train_step(started, batches).skipped
    assert started.ema is not None
    assert started.ema.updates == 0
    with pytest.raises(UserError, match="not finite: the gradient of net"):
        trainer.train_step(started, batches)


def test_a_bad_clip_in_a_worker_ends_the_process(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), np.uint8)
    (tmp_path / "data/a").mkdir(parents=True)
    for t, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / f"data/a/{t:05d}.png"), frame)
    (tmp_path / "data/a/00001.png").write_bytes(b"no image")
    path, overrides = options_and_start(
        1, tmp_path / "data", tmp_path, "data.train.type=FrameFolders", "data.workers=1", "data.train.clip_length=2"
    )
    arguments = [word for o in overrides for word in ("--set", o)]
    done = subprocess.run(
        [sys.executable, "-m", "keep.train", "-opt", str(path), *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert "00001.png: not an image" in done.stderr


def test_out_of_memory_is_reported_with_the_options_to_reduce(tiny, monkeypatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has …")

    monkeypatch.setattr(trainer, "train_step", full)
    with pytest.raises(UserError) as error:
        run(tiny, 1, "data.clips_per_step=12", "data.clips_at_once=4")
    assert "step 1: out of memory on cpu (CUDA out of memory)" in str(error.value)
    assert "data.clips_at_once: 2; train.amp: bf16; " in str(error.value)
    assert "smaller frames than data.train.size 32" in str(error.value)


@pytest.mark.parametrize(
    ("file", "advice"),
    [
        ("stage1_vqgan", "model.perceptual.checkpoint: true; train.amp: bf16; smaller"),
        ("stage2_kalman", "model.checkpoint_encoder: true; train.amp: bf16; a shorter data.train.clip_length than 8; "),
        (
            "stage3_video",
            "model.checkpoint_decoder: true; model.perceptual.checkpoint: true; train.amp: bf16; a shorter",
        ),
    ],
)
def test_out_of_memory_advises_checkpointing_before_what_changes_the_result(file: str, advice: str) -> None:
    off = ["model.checkpoint_decoder=false"] if file == "stage3_video" else []
    config = load(ROOT / f"options/train/{file}.yml", off, TrainConfig)
    full: Any = SimpleNamespace(config=config, batch_size=4, clips_per_step=4, step=0, device="cuda:0")
    assert f"Try, in this order: data.clips_at_once: 2; {advice}" in out_of_memory(full, Exception("full"))


@pytest.mark.parametrize("stage", [2, 3])
def test_single_frames_are_refused_where_parts_act_from_the_second_on(tiny, stage: int) -> None:
    loaded = config(tiny, stage, "data.train.clip_length=1")
    recipe, data = loaded.model.build(), build(loaded.data.train)
    with pytest.raises(UserError, match=r"^data\.train\.clip_length: 1, but .* needs 2 frames or more, or [^\n]*$"):
        check_data(recipe, data, None)
    check_data(config(tiny, stage, "model.per_frame=true").model.build(), data, None)


def test_validation_reads_in_workers_and_only_the_first_process_shows_a_bar(tiny, clips, monkeypatch) -> None:
    val = f"data.val={{type: VideoClips, root: {clips}, size: 32, max_frames: 2}}"
    loaded = config(tiny, 1, val, "val.metrics=[PSNR]", "data.workers=2")
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(validation, "evaluate", lambda *a, **k: (given.append(k), evaluate(*a, **k))[1])
    started = trainer.build_run(loaded)
    checks = validation.Validation.build(loaded, build(loaded.data.val))
    validation.validate(started, checks, RunLog(started.folder, trackers=None), StopRequest())
    assert {k: given[0][k] for k in ("workers", "bar")} == {"workers": 2, "bar": True}


@pytest.mark.parametrize(
    ("options", "world", "split"),
    [
        (["data.clips_per_step=8"], 1, (8, 1)),
        (["data.clips_per_step=8"], 8, (1, 1)),
        (["data.clips_per_step=12", "data.clips_at_once=4"], 2, (3, 2)),
        (["data.clips_per_step=7", "data.clips_at_once=4"], 1, (1, 7)),
        (["data.clips_per_step=2", "data.clips_at_once=9"], 1, (2, 1)),
        (["data.clips_per_step=null", "data.batch_size=3", "train.accumulate=2"], 2, (3, 2)),
        (["data.clips_per_step=null", "train.accumulate=2"], 1, (1, 2)),
    ],
)
def test_the_clips_of_a_step_are_shared_by_the_processes(tiny, options: list[str], world: int, split: Any) -> None:
    assert split_step(config(tiny, 1, *options), world) == split


def test_clips_that_cannot_be_shared_are_refused_with_what_fits(tiny) -> None:
    match = r"^data\.clips_per_step: 4 cannot be shared by 8 processes: use a multiple of 8, or 1 or 2 or 4 processes$"
    with pytest.raises(UserError, match=match):
        build_run(config(tiny, 1, "data.clips_per_step=4"), Ranks(world=8))


def test_the_start_line_shows_clips_a_step_and_of_the_whole_run(tiny, caplog) -> None:
    with caplog.at_level("INFO", logger="keep"):
        run(tiny, 1, "data.clips_per_step=2", "data.clips_at_once=1", "data.source_clips=12800000")
    assert "2 clips a step (2 batches × 1), 8 in the whole run (the source's: 12,800,000), on cpu" in caplog.text
    assert "deprecated" not in caplog.text


def test_the_old_options_are_read_with_one_warning_and_not_beside_the_new(tiny, caplog) -> None:
    with caplog.at_level("INFO", logger="keep"):
        run(tiny, 1, "data.clips_per_step=null", "data.batch_size=2", "train.accumulate=3")
    assert caplog.text.count("deprecated; this run is data.clips_per_step: 6 and data.clips_at_once: 2") == 1
    for old in ("data.batch_size=2", "train.accumulate=2"):
        with pytest.raises(UserError, match=rf"{old[:-2]}: deprecated, and not to be given with data.clips_per_step"):
            config(tiny, 1, old)


def test_a_mixture_trains_and_a_dry_run_names_the_missing_root(tiny, clips, tmp_path, caplog) -> None:
    cv2.imwrite(str(tmp_path / "photograph.png"), np.full((40, 40, 3), 90, np.uint8))
    parts = "[{{type: VideoClips, root: {}}}, {{type: ImageFolder, root: {}, move_stills: true}}]"
    step = "{type: Downsample}"
    mixture = f"{{type: Mixed, clip_length: 2, size: 32, weights: [2, 1], degradation: [{step}], datasets: {{}}}}"

    def data(photographs: Path) -> str:
        return "data.train=" + mixture.replace("{}", parts.format(clips, photographs))

    folder = run(tiny, 1, data(tmp_path))
    assert run(tiny, 1, data(tmp_path), "train.iters=6", resume="auto") == folder
    with caplog.at_level("INFO", logger="keep"):
        dry_run.dry_run(config(tiny, 1, data(tmp_path / "gone")))
    assert "data.train.datasets.1.root" in caplog.text
    assert "dry run passed" in caplog.text


def test_true_is_not_a_number(tiny) -> None:
    with pytest.raises(UserError, match=r"train\.iters: expected a number, not true or false"):
        config(tiny, 1, "train.iters=true")
    with pytest.raises(UserError, match=r"model\.pixel\.weight: expected a number"):
        config(tiny, 1, "model.pixel.weight=false")


SHIPPED = sorted(p for f in ("train", "tiny") for p in (ROOT / f"options/{f}").glob("stage*.yml"))
SMALL = {  # replaces the released sizes; the rest is as shipped
    1: [*NET, "model.discriminator.channels=8", "model.discriminator.layers=2"],
    2: [*KEEP_NET, "model.net.kalman_blocks=1", "model.net.kalman_gain_blocks=1"],
    3: [*KEEP_NET, "model.net.kalman_blocks=1", "model.net.kalman_gain_blocks=1", "model.discriminator.channels=4"],
}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_shipped_training_file_builds_and_makes_a_step(path: Path, clips: Path, tmp_path: Path, capsys) -> None:
    stage = int(path.stem[5])
    _, ours = options_and_start(stage, clips, tmp_path)
    start = [o for o in ours if o.startswith("pretrained.")]
    more = [
        *SMALL[stage], *start, f"root={tmp_path}", "device=cpu", "model.net.norm_groups=1", "model.net.res_blocks=1",
        "data.train.type=VideoClips", f"data.train.root={clips}", "data.train.size=32", "data.train.interval=[1]",
        # Their weights, and those of GMFlow, are downloads:
        *(["model.perceptual=null", "val.metrics=[PSNR]", "log.best_metric=null"] if stage != 2 else []),
        *(["model.net.flow={type: GMFlow, random_weights: true}"] if stage > 1 and path.parent.name == "train" else []),
    ]  # fmt: skip
    if stage == 3:
        net = load(path, more, TrainConfig).model.options["net"].build()
        torch.save({"params": net.state_dict()}, tmp_path / "stage2/models/net_latest.pth")
    arguments = ["-opt", str(path), "--dry-run", *(word for o in more for word in ("--set", o))]
    assert keep_train.main(arguments) == 0
    output = capsys.readouterr().out
    assert "start (step 0)" in output
    assert "dry run passed" in output
