"""Speed of training: seconds a step and samples/s of every stage, with each speed option switched on in turn.

    python -m scripts.bench.train                                   the tiny size of all stages, on the CPU
    python -m scripts.bench.train --stages 3 --size released --image-size 128 --frames 3 --options frozen
    python -m scripts.bench.train --size released --batch 1 --device cuda     stages I to III at 512×512 on a GPU

An option and the plain step (float32, eager, every speed option off) are measured turn by turn in one run; the
speed-up is the median of the paired ratios. Then a short real training run tells the share of time spent waiting for
data. Weights are random, from a seed. How to read the tables: docs/training.md.
"""  # fmt: skip

import argparse
import atexit
import gc
import json
import logging
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from keep.archs.keep import KEEP, KEEPOutput
from keep.config.cli import run
from keep.config.reading import load
from keep.config.registry import build
from keep.config.schema import TrainConfig
from keep.data.video_io import write_video
from keep.flow.warp import warp
from keep.training.run import Run, build_run
from keep.training.trainer import train, train_step
from keep.utils import weight_files
from keep.utils.devices import pick_device, prepare
from keep.utils.errors import UserError
from keep.utils.io import write_file
from keep.utils.logging import to_console
from keep.utils.visual import markdown_table
from scripts.bench.inference import Clock, machine, moving_clip, peak_of_memory, say, start_of_memory

OPTIONS = Path(__file__).resolve().parents[2] / "options"
FILES = {
    "tiny": {n: OPTIONS / f"tiny/stage{n}.yml" for n in (1, 2, 3)},
    "released": {
        n: OPTIONS / f"train/{name}.yml" for n, name in enumerate(("stage1_vqgan", "stage2_kalman", "stage3_video"), 1)
    },
}
ROMAN = {1: "I", 2: "II", 3: "III"}
GIB = 2**30
PLAIN = [
    "train.amp=null", "train.tf32=false", "train.channels_last=false", "train.compile=[]", "train.accumulate=1",
    "train.optim.fused=false", "train.optim_d.fused=false",
]  # fmt: skip
COMPILED = {
    1: ["net.encoder", "net.generator", "discriminator"],
    2: ["net.lq_encoder", "net.hq_encoder", "net.kalman_filter", "net.code_transformer", "net.generator"],
    3: ["net.lq_encoder", "net.hq_encoder", "net.kalman_filter", "net.code_transformer", "discriminator"],
}
"""What the option ``compile`` compiles."""
COLUMNS = (
    "option", "s a step without", "s a step with", "samples/s with", "speed-up, median", "lowest – highest",
    "GiB of a step without", "GiB with",
)  # fmt: skip


@dataclass
class Contender:
    """One way to take a training step, and what is measured of it: seconds, one a round, and bytes of one step."""

    run: Run
    batch: dict[str, Any]
    seconds: list[float] = field(default_factory=list)
    memory: float = 0.0

    def step(self) -> None:
        clock = Clock(self.run.device)
        before = start_of_memory(self.run.device) if self.run.device.type == "cuda" else 0.0
        with clock.part("step"):
            train_step(self.run, [self.batch])
        self.run.step += 1
        self.seconds.append(clock.seconds["step"])
        if self.run.device.type == "cuda":
            self.memory = peak_of_memory(self.run.device) - before
        self.run.recipe.zero_grad(set_to_none=True)  # what no optimizer looks at must not pile up in the naive step


def bench(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    device = prepare(args.device, args.threads, 0)
    to_console(logging.WARNING)
    tables: list[str] = []
    results: list[dict[str, Any]] = []
    for stage in args.stages:
        tables.append(f"### Stage {ROMAN[stage]}, {args.size}\n")
        config = options(args, stage)
        rows = [
            compare(args, stage, name)
            for name in choices(stage, device)
            if args.options is None or name in args.options
        ]
        if rows:
            shape = batch_of(config, device)["gt"].shape
            tables.append(f"{shape[0]} clips of {shape[1]} frames, {shape[3]}×{shape[4]}.\n")
            shown = COLUMNS if device.type == "cuda" else COLUMNS[:-2]  # memory
            tables.append(markdown_table(rows, shown, 3))
        results += [{"stage": stage, "size": args.size, **row} for row in rows]
        if args.data_steps:
            row = data_wait(args, stage)
            tables.append(markdown_table([row], list(row), 3))
            results.append({"stage": stage, "size": args.size, **row})
    head = f"{machine(device)}; PyTorch {torch.__version__}; {args.rounds} rounds.\n"
    text = "\n".join([head, *tables])
    print(text, end="")
    if args.out:
        write_file(args.out, text)
        write_file(
            args.out.with_suffix(".json"), json.dumps({"machine": head.strip(), "rows": results}, indent=1) + "\n"
        )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="scripts.bench.train", description="training steps with each speed option in turn")
    p.add_argument("--stages", type=int, nargs="+", choices=(1, 2, 3), default=[1, 2, 3])
    p.add_argument("--size", choices=tuple(FILES), default="tiny", help="the demo's networks, or the released ones")
    p.add_argument("--image-size", type=int, help="side of the frames; the network's other sizes follow")
    p.add_argument("--frames", type=int, help="frames of a clip")
    p.add_argument("--batch", type=int, help="clips a step")
    p.add_argument("--flow", help="flow estimator; by default dis on a CPU, gmflow (random weights) on a GPU")
    p.add_argument("--options", nargs="+", metavar="NAME", help=f"only these of: {', '.join(choices(3, None))}")
    p.add_argument("--rounds", type=int, default=9, help="pairs of steps for each option")
    p.add_argument("--warmup", type=int, help="steps before them; by default 1, on a GPU 3")
    p.add_argument("--data-steps", type=int, default=20, help="steps of the real run that tells the wait; 0: none")
    p.add_argument("--data", type=Path, help="folder of clips as data.train.root; by default made-up videos")
    p.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or auto")
    p.add_argument("--threads", type=int, default=1, help="CPU threads (0: torch's choice)")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override an option everywhere")
    p.add_argument("--out", type=Path, help="write the tables to this file too, and beside it .json")
    args = p.parse_args(argv)
    args.warmup = args.warmup if args.warmup is not None else 3 if pick_device(args.device).type == "cuda" else 1
    if args.rounds < 1 or args.warmup < 1:
        raise UserError("--rounds and --warmup must be at least 1")
    unknown = sorted(set(args.options or ()) - set(choices(3, None)))
    if unknown:
        raise UserError(f"--options {unknown[0]}: known: {', '.join(choices(3, None))}")
    return args


# --- options ----------------------------------------------------------------------------------------------------


def choices(stage: int, device: torch.device | None) -> dict[str, list[str]]:
    """Name of a speed option → its overrides. Only those that the stage and the device know; None: all."""
    compiled = [f"train.compile=[{', '.join(COMPILED[stage])}]"]
    fused = ["train.optim.fused=true", "train.optim_d.fused=true"]
    half, last = ["train.amp=bf16"], ["train.channels_last=true"]
    found = {
        "frozen": [],  # frozen parts out of autograd: against the naive step
        "channels_last": last,
        "fused": fused,
        "bf16": half,
        "fp16": ["train.amp=fp16"],
        "tf32": ["train.tf32=true"],
        "compile": compiled,
        "checkpointing": ["model.checkpoint_decoder=true"],
        "bf16+compile+channels_last": [*half, *compiled, *last],
    }
    if device is not None and device.type == "cpu":
        for name in ("fp16", "tf32"):
            del found[name]
    if stage != 3:
        for name in ("frozen", "checkpointing"):
            del found[name]
    return found


def options(args: argparse.Namespace, stage: int, *more: str) -> TrainConfig:
    """The shipped options with every speed option off, at the size asked for, with the adversarial terms on."""
    changes = [*PLAIN, "data.val=null", f"device={args.device}", f"threads={args.threads}"]
    if stage != 2:
        changes.append("model.gan_start=0")
    if stage == 3:
        changes.append("model.checkpoint_decoder=false")
    if args.size == "released" and stage != 2:
        changes.append(f"model.perceptual.weights={random_vgg()}")
    if stage > 1:
        flow = args.flow or ("dis" if pick_device(args.device).type == "cpu" else "gmflow")
        changes += [f"model.net.flow={flow}", *([f"model.flow={flow}"] if stage == 3 else [])]
    if args.image_size:
        changes += sizes(args.image_size, stage, load(FILES[args.size][stage], [], TrainConfig))
    if args.frames and stage > 1:
        changes.append(f"data.train.clip_length={args.frames}")
    if args.batch:
        changes.append(f"data.batch_size={args.batch}")
    return load(FILES[args.size][stage], [*changes, *more, *args.set], TrainConfig)


@cache
def random_vgg() -> Path:
    """A file of VGG16's shapes with random weights, for the perceptual term: its time does not depend on them."""
    from torchvision.models import vgg16

    folder = tempfile.TemporaryDirectory(prefix="bench_train_")
    atexit.register(folder.cleanup)
    path = Path(folder.name) / "vgg16_random.pth"
    features = vgg16(weights=None).features.state_dict()
    weight_files.save(path, {f"features.{k}": v for k, v in features.items()})
    return path


def sizes(side: int, stage: int, config: TrainConfig) -> list[str]:
    """Frames of ``side`` pixels: the sizes at which the network attends and fuses shrink with them."""
    net = config.model.options["net"].options

    def scaled(name: str) -> str:
        return f"model.net.{name}={[n * side // net['image_size'] for n in net[name]]}"

    names = ("attn_resolutions",) if stage == 1 else ("attn_resolutions", "cft_scales", "cfa_scales")
    return [f"model.net.image_size={side}", f"data.train.size={side}", *map(scaled, names)]


def batch_of(config: TrainConfig, device: torch.device) -> dict[str, Any]:
    """A moving texture in the shape of the run's batches."""
    data = config.data.train.options
    gt = moving_clip(config.data.batch_size, data["clip_length"], data["size"])
    lq = F.interpolate(gt.flatten(0, 1), scale_factor=0.25, mode="area").unflatten(0, gt.shape[:2])
    return {"gt": gt.to(device), "lq": lq.to(device), "name": ["made up"] * len(gt)}


# --- steps ------------------------------------------------------------------------------------------------------


def compare(args: argparse.Namespace, stage: int, name: str) -> dict[str, Any]:
    """One row: the plain step (for ``frozen``, the naive one) and the step with the option, turn by turn."""
    say(f"stage {ROMAN[stage]}, {args.size}: {name}")
    device = pick_device(args.device)
    release(device)
    try:
        plain, other = race(args, stage, name, device)
    except torch.OutOfMemoryError:
        say("  the GPU is full: take fewer clips (--batch) or frames (--frames)")
        return dict.fromkeys(COLUMNS, "–") | {"option": name, "lowest – highest": "out of memory"}
    ratios = [a / b for a, b in zip(plain.seconds, other.seconds, strict=True)]
    median = statistics.median(other.seconds)
    cuda = device.type == "cuda"  # a CPU's allocator keeps what it has: a step shows little
    row = (
        name,
        statistics.median(plain.seconds),
        median,
        len(plain.batch["gt"]) / median,
        statistics.median(ratios),
        f"{min(ratios):.2f} – {max(ratios):.2f}",
        plain.memory / GIB if cuda else "–",
        other.memory / GIB if cuda else "–",
    )
    return dict(zip(COLUMNS, row, strict=True))


def race(args: argparse.Namespace, stage: int, name: str, device: torch.device) -> tuple[Contender, Contender]:
    """Both steps, after they took their turns."""
    configs = options(args, stage), options(args, stage, *choices(stage, device)[name])
    batch = batch_of(configs[0], device)
    plain, other = (Contender(build_run(c, start=False), batch) for c in configs)
    if name == "frozen":
        all_in_autograd(plain.run)
    for i in range(-args.warmup, args.rounds):
        if i == 0:
            plain.seconds.clear()
            other.seconds.clear()
        for contender in (plain, other) if i % 2 == 0 else (other, plain):
            contender.step()
        if i >= 0:
            say(f"  round {i + 1}/{args.rounds}: {plain.seconds[-1]:.3f} s, {other.seconds[-1]:.3f} s")
    for contender in (plain, other):
        del contender.run
    return plain, other


def release(device: torch.device) -> None:
    """Forget the networks of the pair before."""
    gc.collect()
    torch._dynamo.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def all_in_autograd(run: Run) -> None:
    """Make a stage III step naive: every parameter wants its gradient, and no network is left out of the graph.

    Flow estimators alone stay outside: they have no gradients in themselves. The optimizers stay as they are, so that
    both steps train CFT, CFA and the discriminator by the same gradients.
    """
    run.recipe.requires_grad_(True)
    run.recipe.net.forward = partial(naive_forward, run.recipe.net)


def naive_forward(net: KEEP, lq: Tensor, **_: Any) -> KEEPOutput:
    """:meth:`KEEP.forward` (Algorithm 1) without a single ``no_grad`` or ``detach``."""
    z_obs, features = net.observe(lq)
    gains = net.kalman_filter(z_obs)
    flows = net.estimate_flows(lq)
    outputs, logits, memory = [], [], {}
    for t in range(lq.shape[1]):
        z = z_obs[:, t]
        if t:
            z_prior = net.hq_encoder(warp(outputs[-1], flows[:, t - 1]))
            z = (1 - gains[:, t]) * z_prior + gains[:, t] * z
        logits.append(net.code_transformer(z))
        z_q = net.codebook.lookup(logits[-1].argmax(-1), *z.shape[-2:])
        output, memory = net.decode(z_q, {scale: f[:, t] for scale, f in features.items()}, memory)
        outputs.append(output)
    stacked = torch.stack(logits, dim=1)
    none = z_obs[:, :0]
    return KEEPOutput(torch.stack(outputs, dim=1), z_obs, gains, none, z_obs, stacked, stacked.argmax(-1), none)


# --- waiting for data -------------------------------------------------------------------------------------------


def data_wait(args: argparse.Namespace, stage: int) -> dict[str, Any]:
    """One row: a real run of the training loop on clips from disk, as shipped but for validation and pictures."""
    say(f"stage {ROMAN[stage]}, {args.size}: a run of {args.data_steps} steps")
    device = pick_device(args.device)
    release(device)
    fast = choices(stage, device)["bf16+compile+channels_last"] if device.type == "cuda" else []
    with tempfile.TemporaryDirectory() as folder:
        size = options(args, stage).data.train.options["size"]
        data = [f"data.train.root={args.data}"] if args.data else made_up_videos(Path(folder) / "clips", size)
        half = max(1, args.data_steps // 2)  # the first half starts workers, kernels and caches
        more = [
            *data, f"root={folder}/runs", f"train.iters={2 * half}", f"log.interval={half}",
            "log.image_interval=1000000000", "log.save_interval=1000000000",
        ]  # fmt: skip
        config = options(args, stage, *fast, *more)
        needed = {2: "vqgan", 3: "keep"}.get(stage)
        if needed:
            file = Path(folder) / "random.pth"
            parts = build(config.model.options["net"]).state_dict()
            if stage == 2:
                parts = {
                    k.replace("hq_encoder.", "encoder.", 1): v
                    for k, v in parts.items()
                    if k.startswith(("hq_encoder.", "codebook.", "generator."))
                }
            weight_files.save(file, {"params": parts})
            config = options(args, stage, *fast, *more, f"pretrained.{needed}={file}")
        done = train(config)
        records = [json.loads(line) for line in (done / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    last = [r for r in records if "time/step" in r][-1]
    return {
        "a real run": "all together" if fast else "plain",
        "workers": config.data.workers,
        "s a step": last["time/step"],
        "samples/s": config.data.batch_size / last["time/step"],
        "waiting for data": f"{last['time/data_share']:.1%}",
    }


def made_up_videos(folder: Path, size: int) -> list[str]:
    """The options that name them: eight H.264 videos of 64 frames of a moving texture."""
    folder.mkdir()
    for n in range(8):
        frames = ((moving_clip(1, 64, size)[0].roll(n * 7, -2) + 1) * 127.5).byte().permute(0, 2, 3, 1).numpy()
        write_video(folder / f"{n}.mp4", frames, fps=25)
    return ["data.train.type=VideoClips", f"data.train.root={folder}"]


if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")
    sys.exit(run(bench))
