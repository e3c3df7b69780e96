"""GPU memory that training needs, counted without a GPU and without allocating it.

    python -m scripts.memory                                                        the shipped options of all stages
    python -m scripts.memory options/train/stage3_video.yml --clips 1 --frames 12 --out memory.md

For every options file: weights, gradients, optimizer moments, averaged weights, frozen networks; and activations in
float32 and bf16, with and without activation checkpointing, with the largest batches that fit GPUs of 24, 40 and 80 GB.
docs/training.md explains the tables.
"""  # fmt: skip

import argparse
import math
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from keep.config import arguments
from keep.config.cli import Parser, run
from keep.config.reading import load
from keep.config.schema import TrainConfig
from keep.training.guards import checkpoint_options
from keep.training.run import split_step
from keep.utils.io import write_file
from keep.utils.tables import markdown_table
from scripts.bench.common import GIB, say
from scripts.memory_count import Amp, Memory, StepCounter

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = (
    "train/stage1_vqgan.yml", "train/stage2_kalman.yml", "train/stage3_video.yml",
    *(f"{folder}/stage{stage}.yml" for folder in ("small", "nano", "lite") for stage in (1, 2, 3)),
)  # fmt: skip
"""Options files of the default tables: one a stage. The others of a stage train the same networks."""
CARDS = (24, 40, 80)
RESERVE = 0.1
"""Share of a GPU's memory that is not counted on: CUDA's context, cuDNN's workspaces, fragmentation."""
HEAD = f"""\
In GiB (2^30 bytes); a GPU sold as 24 GB has 24 GiB. {RESERVE:.0%} of it are left to CUDA's context, cuDNN's workspaces
and fragmentation. Activations are the peak of a forward and backward pass.
"""


@dataclass(frozen=True)
class Choice:
    """What a step needs in one precision, with some checkpointing.

    Attributes:
        precision: ``float32`` or the value of ``train.amp``.
        checkpointing: the options that are on.
        clips: of the batch.
        frames: of a clip.
        memory: of this batch.
    """

    precision: str
    checkpointing: str
    clips: int
    frames: int
    memory: Memory

    @property
    def clip(self) -> float:
        """Bytes of one more clip."""
        return (self.memory.activations - self.memory.shared) / self.clips

    def largest(self, card: int) -> str:
        """The largest batch for a GPU of ``card`` GiB, clips × frames: of clips of the given length, or of one clip."""
        free = card * GIB * (1 - RESERVE) - self.memory.fixed - self.memory.shared
        clips = math.floor(free / self.clip)
        if clips > 1 or self.frames == 1:
            return f"{clips} × {self.frames}" if clips > 0 else "–"
        frames = math.floor(free / (self.clip / self.frames))
        return f"1 × {frames}" if frames > 0 else "–"


def main(argv: Sequence[str] | None) -> None:
    args = parse(argv)
    for path in args.options:
        load(path, args.set, TrainConfig)  # report mistakes before the work
    count = partial(count_file, overrides=args.set, clips=args.clips, frames=args.frames)
    if len(args.options) == 1:
        found = {path: count(path) for path in args.options}
    else:
        with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), torch.set_num_threads, (1,)) as pool:
            found = dict(zip(args.options, pool.map(count, args.options), strict=True))
    text = "\n".join([HEAD, fixed_table(found), step_table(found)])
    print(text, end="")
    if args.out:
        write_file(args.out, text)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = Parser(prog="scripts.memory", description="GPU memory that training needs, counted without a GPU.")
    p.add_argument("options", type=Path, nargs="*", metavar="YML", help="options files (default: the shipped ones)")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override an option in all files")
    p.add_argument("--clips", type=arguments.count, help="clips of a batch (default: the file's)")
    p.add_argument("--frames", type=arguments.count, help="frames of a clip (default: the file's)")
    p.add_argument("--out", type=Path, metavar="FILE.md", help="also write the tables to this file")
    args = p.parse_args(argv)
    args.options = args.options or [ROOT / "options" / name for name in SHIPPED]
    return args


def count_file(path: Path, overrides: Sequence[str], clips: int | None, frames: int | None) -> list[Choice]:
    """Every choice of precision and checkpointing for one options file."""
    say(f"{path}: counting")
    config = load(path, overrides, TrainConfig)
    own = checkpoint_options(config.model)
    none, every = dict.fromkeys(own, False), dict.fromkeys(own, True)
    choices: list[tuple[Amp, dict[str, bool]]] = [(a, options) for a in (None, "bf16") for options in (none, every)]
    if own not in (none, every):
        choices.insert(1 if config.train.amp is None else 3, (config.train.amp, own))
    clips = clips or split_step(config, world=1)[0]
    length: int = frames or config.data.train.options["clip_length"]
    counter = StepCounter(config)
    found = []
    for amp, checkpointing in choices:
        names = [option.removeprefix("model.") for option, on in checkpointing.items() if on]
        memory = counter.count(clips, length, amp, checkpointing)
        found.append(Choice(amp or "float32", ", ".join(names) or "none", clips, length, memory))
    return found


def fixed_table(found: dict[Path, list[Choice]]) -> str:
    """What does not depend on the clips, a row an options file."""
    parts = ("weights", "gradients", "moments", "ema", "frozen", "fixed")
    rows = []
    for path, choices in found.items():
        memory = choices[0].memory
        rows.append({"options": short(path), **{part: getattr(memory, part) / GIB for part in parts}})
    titles: dict[str, str] = {"moments": "optimizer moments", "ema": "EMA", "frozen": "frozen networks", "fixed": "sum"}
    titled = [{titles.get(str(k), str(k)): v for k, v in row.items()} for row in rows]
    return markdown_table(titled, list(titled[0]), 2)


def step_table(found: dict[Path, list[Choice]]) -> str:
    """Activations and what fits, a row a choice."""
    rows: list[dict[str, Any]] = []
    for path, choices in found.items():
        for choice in choices:
            rows.append(
                {
                    "options": short(path),
                    "precision": choice.precision,
                    "checkpointing": choice.checkpointing,
                    "clips × frames": f"{choice.clips} × {choice.frames}",
                    "activations": choice.memory.activations / GIB,
                    "in all": choice.memory.total / GIB,
                    "a clip": choice.clip / GIB,
                    "a frame": choice.clip / choice.frames / GIB,
                    **{f"{card} GB": choice.largest(card) for card in CARDS},
                }
            )
    return markdown_table(rows, list(rows[0]), 2)


def short(path: Path) -> str:
    """A shipped file without the folder ``options``."""
    folder = ROOT / "options"
    return str(path.resolve().relative_to(folder) if path.resolve().is_relative_to(folder) else path)


if __name__ == "__main__":
    sys.exit(run(main))
