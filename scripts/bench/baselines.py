"""Cost of networks side by side: a training step, GFLOP a frame, frames/s, and the future frames that each needs.

    python -m scripts.bench.baselines                   KEEP, BasicVSR++, BasicVSR and EDVR of the nano size, on the CPU
    python -m scripts.bench.baselines FILE FILE …       other options files of keep.train; ratios are to the first

The weights are random. Each network gets the clips of its own options file. Steps of all networks alternate in one
run; the ratio is the median of the paired ratios. A step has no perceptual loss: no weights are downloaded. GFLOP are
counted by torch.utils.flop_counter, two for a multiplication and its addition; flow by OpenCV is not counted.
"""  # fmt: skip

import argparse
import logging
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from keep.config import arguments
from keep.config.cli import Parser, run
from keep.config.reading import load
from keep.config.schema import TrainConfig
from keep.training.run import Run, build_run
from keep.training.trainer import train_step
from keep.utils.devices import prepare
from keep.utils.logging import to_console
from keep.utils.tables import markdown_table
from scripts.bench.common import Clock, machine
from scripts.bench.train_options import OPTIONS, PLAIN, batch_of

FILES = [
    OPTIONS / "nano/stage3.yml",
    *(OPTIONS / f"baselines/nano/{n}.yml" for n in ("basicvsrpp", "basicvsr", "edvr")),
]
RECURRENT = "the clip"
"""Future frames of a network that reads a clip in both directions."""


@dataclass
class Contender:
    """A run, its batch, and what was measured."""

    name: str
    run: Run
    batch: dict[str, Any]
    steps: list[float] = field(default_factory=list)
    restores: list[float] = field(default_factory=list)

    def measure(self) -> None:
        """One training step, and one clip restored."""
        clock = Clock(self.run.device)
        with clock.part("step"):
            train_step(self.run, [self.batch] * self.run.batches)
        self.run.step += 1
        self.run.recipe.eval()
        with torch.no_grad(), clock.part("restore"):
            self.run.recipe.restore(self.batch["lq"][:1])
        self.run.recipe.train()
        self.steps.append(clock.seconds["step"])
        self.restores.append(clock.seconds["restore"] / self.batch["lq"].shape[1])

    def row(self, reference: "Contender") -> dict[str, Any]:
        """What was measured, as a row of the table."""
        net = self.run.recipe.net
        ratios = [a / b for a, b in zip(self.steps, reference.steps, strict=True)]
        future = getattr(net, "future_frames", 0)
        return {
            "network": self.name,
            "M parameters": sum(p.numel() for p in net.parameters()) / 1e6,
            "GFLOP a frame": gigaflops_a_frame(self.run.recipe, self.batch["lq"][:1]),
            "frames/s": 1 / statistics.median(self.restores),
            "future frames": RECURRENT if future is None else str(future),
            "frames a step": str(self.run.clips_per_step * self.batch["lq"].shape[1]),
            "s a step": statistics.median(self.steps),
            "ratio": statistics.median(ratios),
        }


def gigaflops_a_frame(recipe: Any, lq: torch.Tensor) -> float:
    """GFLOP to restore one frame of the clip ``lq`` (1, T, 3, h, w), the mean over its frames."""
    from torchvision.ops import deform_conv2d  # noqa: F401  (registers the operator)

    def deformable(x: Any, weight: Any, *_: Any, out_shape: Any, **_options: Any) -> int:
        return 2 * out_shape[0] * out_shape[2] * out_shape[3] * weight[0] * weight[1] * weight[2] * weight[3]

    operator = torch.ops.torchvision.deform_conv2d
    recipe.eval()
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping={operator: deformable}) as counter:
        recipe.restore(lq)
    recipe.train()
    return counter.get_total_flops() / 1e9 / lq.shape[1]


def contender(path: Path, args: argparse.Namespace) -> Contender:
    """The run of an options file, with random weights, everything that needs files or speeds a step up switched off."""
    given = load(path, [], TrainConfig)
    changes = [*PLAIN, "data.val=null", f"device={args.device}", f"threads={args.threads}", "name=bench"]
    changes += [f"model.{part}=null" for part in ("perceptual", "regions") if part in given.model.options]
    changes += ["data.clips_per_step=1"]
    config = load(path, [*changes, *args.set], TrainConfig)
    made = build_run(config, start=False)
    return Contender(f"{path.parent.name}/{path.stem}", made, batch_of(config, made.device))


def bench(argv: Sequence[str] | None = None) -> None:
    parser = Parser(prog="python -m scripts.bench.baselines", description="Cost of networks side by side.")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="options files of keep.train")
    parser.add_argument("--rounds", type=arguments.count, default=5, metavar="N", help="measured rounds (default 5)")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    parser.add_argument("--threads", type=arguments.count, default=1, metavar="N", help="CPU threads (default 1)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change an option of every file"
    )
    args = parser.parse_args(argv)
    device = prepare(args.device, args.threads, 0)
    to_console(logging.WARNING)
    contenders = [contender(path, args) for path in args.files or FILES]
    for one in contenders:  # the first step allocates the optimizer's state
        one.measure()
        one.steps.clear()
        one.restores.clear()
    for _ in range(args.rounds):
        for one in contenders:
            one.measure()
    rows = [one.row(contenders[0]) for one in contenders]
    print(f"{machine(device)}; PyTorch {torch.__version__}; {args.rounds} rounds, float32.\n")
    print(markdown_table(rows, dict.fromkeys(rows[0]), {"s a step": 3, "ratio": 2, "GFLOP a frame": 2, "frames/s": 2}))


if __name__ == "__main__":
    sys.exit(run(bench))
