"""Speed of training: seconds a step and samples/s of every stage, with each speed option in turn.

    python -m scripts.bench.train                                   the tiny size of all stages, on the CPU
    python -m scripts.bench.train --stages 3 --size released --image-size 128 --frames 3 --options frozen
    python -m scripts.bench.train --size released --batch 1 --device cuda     stages I to III at 512×512 on a GPU

Steps with an option and plain steps (float32, eager, every speed option off) alternate in one run; the speed-up is the
median of the paired ratios. Then a short real training run measures the share of time spent waiting for data. The
weights are random, from a seed. docs/training.md explains the tables.
"""  # fmt: skip

import argparse
import gc
import json
import logging
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from keep.config import arguments
from keep.config.cli import Parser, run
from keep.config.registry import build
from keep.config.schema import TrainConfig
from keep.data.video_io import write_video
from keep.training.run import Run, build_run, split_step
from keep.training.trainer import train, train_step
from keep.utils import weight_files
from keep.utils.devices import pick_device, prepare
from keep.utils.errors import UserError
from keep.utils.io import write_file
from keep.utils.logging import to_console
from keep.utils.tables import markdown_table
from scripts.bench.common import GIB, Clock, machine, moving_clip, peak_of_memory, say, start_of_memory
from scripts.bench.train_naive import all_in_autograd
from scripts.bench.train_options import FILES, batch_of, choices, options

ROMAN = {1: "I", 2: "II", 3: "III"}
COLUMNS = (
    "option", "s a step without", "s a step with", "samples/s with", "speed-up, median", "lowest – highest",
    "GiB of a step without", "GiB with",
)  # fmt: skip


@dataclass
class Contender:
    """A run whose steps are measured.

    Attributes:
        run: the run.
        batch: the batch of every step.
        seconds: seconds of a step, one value a round.
        memory: peak bytes of a step above those before it; measured on a GPU.
    """

    run: Run
    batch: dict[str, Any]
    seconds: list[float] = field(default_factory=list)
    memory: float = 0.0

    def step(self) -> None:
        """Take a training step and measure it."""
        clock = Clock(self.run.device)
        before = start_of_memory(self.run.device) if self.run.device.type == "cuda" else 0.0
        with clock.part("step"):
            train_step(self.run, [self.batch])
        self.run.step += 1
        self.seconds.append(clock.seconds["step"])
        if self.run.device.type == "cuda":
            self.memory = peak_of_memory(self.run.device) - before
        self.run.recipe.zero_grad(set_to_none=True)  # gradients without an optimizer must not add up in the naive step


def bench(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    device = prepare(args.device, args.threads, 0)
    to_console(logging.WARNING)
    results = Results(args, device)
    for stage in args.stages:
        for name in (n for n in choices(stage, device) if args.options is None or n in args.options):
            results.add(stage, compare(args, stage, name))
        if args.data_steps:
            results.add(stage, measure_data_wait(args, stage))
    print(results.text(), end="")


class Results:
    """The rows so far; with ``--out`` each is written the moment it exists."""

    def __init__(self, args: argparse.Namespace, device: torch.device) -> None:
        self.args, self.device = args, device
        self.head = f"{machine(device)}; PyTorch {torch.__version__}; {args.rounds} rounds."
        self.rows: list[tuple[int, dict[str, Any]]] = []

    def add(self, stage: int, row: dict[str, Any]) -> None:
        self.rows.append((stage, row))
        if self.args.out:
            rows = [{"stage": stage, "size": self.args.size, **row} for stage, row in self.rows]
            content = json.dumps({"machine": self.head, "rows": rows}, indent=1) + "\n"
            write_file(self.args.out.with_suffix(".json"), content)
            write_file(self.args.out, self.text())

    def text(self) -> str:
        """The tables of all stages."""
        tables = [f"{self.head}\n"]
        for stage in self.args.stages:
            tables.append(f"### Stage {ROMAN[stage]}, {self.args.size}\n")
            rows = [row for n, row in self.rows if n == stage]
            if steps := [row for row in rows if "option" in row]:
                data = options(self.args, stage)
                clips, side = split_step(data, 1)[0], data.data.train.options["size"]
                tables.append(f"{clips} clips of {data.data.train.options['clip_length']} frames, {side}×{side}.\n")
                shown = COLUMNS if self.device.type == "cuda" else COLUMNS[:-2]  # memory
                tables.append(markdown_table(steps, shown, 3))
            tables += [markdown_table([row], list(row), 3) for row in rows if "option" not in row]
        return "\n".join(tables)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = Parser(prog="scripts.bench.train", description="Speed of training steps with each speed option.")
    p.add_argument("--stages", type=int, nargs="+", choices=(1, 2, 3), default=[1, 2, 3], help="stages to measure")
    p.add_argument("--size", choices=tuple(FILES), default="tiny", help="networks of the demo, or the released ones")
    p.add_argument(
        "--image-size", type=arguments.side, help="side of the frames; the network's other sizes scale with it"
    )
    p.add_argument("--frames", type=arguments.count, help="frames of a clip")
    p.add_argument("--batch", type=arguments.count, help="clips a step")
    p.add_argument("--flow", help="flow estimator; by default dis on a CPU, GMFlow on a GPU (with random weights)")
    p.add_argument("--options", nargs="+", metavar="NAME", help=f"measure only these: {', '.join(choices(3, None))}")
    p.add_argument("--rounds", type=arguments.count, default=9, help="pairs of steps for each option")
    p.add_argument("--warmup", type=arguments.count, help="steps before the rounds; by default 1, on a GPU 3")
    p.add_argument(
        "--data-steps",
        type=arguments.count_or_none,
        default=20,
        help="steps of the real run; 0: skip it",
    )
    p.add_argument("--data", type=Path, help="folder of clips for that run; by default synthetic videos")
    p.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or auto")
    p.add_argument("--threads", type=arguments.processes, default=1, help="CPU threads (0: torch's choice)")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override an option in all runs")
    p.add_argument("--out", type=Path, help="also write the tables to this file, and as .json beside it")
    args = p.parse_args(argv)
    args.warmup = args.warmup if args.warmup is not None else 3 if pick_device(args.device).type == "cuda" else 1
    unknown = sorted(set(args.options or ()) - set(choices(3, None)))
    if unknown:
        raise UserError(f"--options {unknown[0]}: known: {', '.join(choices(3, None))}")
    return args


def compare(args: argparse.Namespace, stage: int, name: str) -> dict[str, Any]:
    """One row: the plain step (for ``frozen``, the naive one) against the step with the option."""
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
    cuda = device.type == "cuda"  # a CPU's allocator keeps freed memory: its peak says little
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
    """Run plain steps and steps with the option, alternating; returns both contenders."""
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
    """Free the memory of the pair before."""
    gc.collect()
    torch._dynamo.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def measure_data_wait(args: argparse.Namespace, stage: int) -> dict[str, Any]:
    """One row: a real training run on clips from disk, without validation and pictures."""
    say(f"stage {ROMAN[stage]}, {args.size}: a run of {args.data_steps} steps")
    device = pick_device(args.device)
    release(device)
    fast = choices(stage, device)["bf16+compile+channels_last"] if device.type == "cuda" else []
    with tempfile.TemporaryDirectory() as folder:
        size = options(args, stage).data.train.options["size"]
        frames = ["data.train.landmarks=null"] if args.size == "released" else []
        data = (
            [f"data.train.root={args.data}", *frames] if args.data else synthetic_videos(Path(folder) / "clips", size)
        )
        half = max(1, args.data_steps // 2)  # the first half starts workers, kernels and caches
        more = [
            *data, f"root={folder}/runs", f"train.iters={2 * half}", f"log.interval={half}",
            "log.image_interval=1000000000", "log.save_interval=1000000000",
        ]  # fmt: skip
        config = options(args, stage, *fast, *more)
        if stage > 1:
            start = random_start(config, stage, Path(folder) / "random.pth")
            config = options(args, stage, *fast, *more, start)
        run_folder = train(config)
        records = [json.loads(line) for line in (run_folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    last = [r for r in records if "time/step" in r][-1]
    return {
        "a real run": "all together" if fast else "plain",
        "workers": config.data.workers,
        "s a step": last["time/step"],
        "samples/s": split_step(config, 1)[0] / last["time/step"],
        "waiting for data": f"{last['time/data_share']:.1%}",
    }


def random_start(config: TrainConfig, stage: int, file: Path) -> str:
    """Write random weights for stage II or III to start from; returns the option that names them."""
    state = build(config.model.options["net"]).state_dict()
    if stage == 2:
        state = {
            k.replace("hq_encoder.", "encoder.", 1): v
            for k, v in state.items()
            if k.startswith(("hq_encoder.", "codebook.", "generator."))
        }
    weight_files.save(file, {"params": state})
    return f"pretrained.{'vqgan' if stage == 2 else 'keep'}={file}"


def synthetic_videos(folder: Path, size: int) -> list[str]:
    """Write eight H.264 videos, 64 frames of a moving texture each; returns the options that name them."""
    folder.mkdir()
    for n in range(8):
        frames = ((moving_clip(1, 64, size)[0].roll(n * 7, -2) + 1) * 127.5).byte().permute(0, 2, 3, 1).numpy()
        write_video(folder / f"{n}.mp4", frames, fps=25)
    return ["data.train.type=VideoClips", f"data.train.root={folder}"]


if __name__ == "__main__":
    sys.exit(run(bench))
