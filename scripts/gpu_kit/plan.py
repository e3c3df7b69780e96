"""The jobs of the GPU kit, in order of value."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from keep.config.reading import load
from keep.config.schema import TrainConfig
from keep.utils.errors import UserError, nearest
from keep.utils.signals import REQUEUE
from scripts.gpu_kit.jobs import Job
from scripts.gpu_kit.kit import ROOT
from scripts.train_stages import target

FULL = 480.0
"""The budget in seconds that the limits below are for; for another they change in proportion."""
SLOW_TESTS = ("test_compile.py", "test_ranks.py")
"""Test files that run last."""
RELEASED = ["--size", "released", "--batch", "1", "--frames", "4", "--rounds", "3", "--warmup", "1"]
"""One clip of four frames: a float32 step of stage III at the options' own size takes seconds and 100 GiB."""
PLAIN = ("bf16", "channels_last", "tf32", "fused", "fp16", "checkpointing")
COMPILED = ("bf16+compile+channels_last", "compile")


def python(module: str, *words: str) -> list[str]:
    return [sys.executable, "-m", module, *words]


def measurements(device: str, size: str) -> list[Job]:
    """The jobs that measure.

    Args:
        device: cpu or cuda.
        size: ``released``, or ``small``: networks that a CPU computes in seconds.
    """
    on = ["--device", device]
    small = size == "small"
    inference = [*on, *(["--size", "small", "--rounds", "1"] if small else ["--batch", "4", "--rounds", "5"])]
    norm = [*on, *(["--size", "small"] if small else [])]
    sizes = ["--size", "tiny", "--rounds", "1"] if small else RELEASED
    train = [*on, *sizes, "--stages", *("3", "2", "1"), "--data-steps", "0", "--out", "@FOLDER/train.md"]
    return [
        Job("versions", "software and hardware", python("scripts.gpu_kit.versions", "--out", "@FOLDER"), 25),
        Job("tests", "tests/gpu on the device", python("scripts.gpu_kit.tests", *on, "--out", "@FOLDER"), 75),
        Job("parity", "the shipped network on the CPU and on the device",
            python("scripts.gpu_kit.parity", *on, "--out", "@FOLDER"), 25),
        Job("inference", "speed of inference",
            python("scripts.bench.inference", *inference, "--dtype", "bfloat16", "--out", "@FOLDER/inference"), 60),
        Job("norm", "GroupNorm", python("scripts.bench.norm", *norm, "--out", "@FOLDER"), 25),
        Job("train", "training with and without each speed option",
            python("scripts.bench.train", *train, "--options", *PLAIN), 80),
        Job("train_compiled", "training with compiled networks",
            python("scripts.bench.train", *train, "--options", *COMPILED), 80),
    ]  # fmt: skip


def choose(jobs: Sequence[Job], names: Iterable[str] | None, budget: float) -> list[Job]:
    """The named jobs (None: all), with limits for this budget."""
    known = {job.name: job for job in jobs}
    for name in names or ():
        if name not in known:
            raise UserError(f"--jobs {name}: no such job{nearest(name, known)}; jobs: {', '.join(known)}")
    chosen = [job for job in jobs if names is None or job.name in names]
    return [with_limit(job, budget / FULL) for job in chosen]


def with_limit(job: Job, scale: float) -> Job:
    assert job.seconds is not None
    return Job(job.name, job.what, job.command, job.seconds * scale)


def trainings(args: argparse.Namespace) -> list[Job]:
    """A job for each options file of the command line.

    Raises:
        UserError: a file that does not exist or has mistakes, or shares that do not fit the files.
    """
    shares = args.shares or [1.0] * len(args.train)
    if len(shares) != len(args.train) or min(shares, default=1.0) <= 0:
        raise UserError(f"--shares: give a positive number for each of the {len(args.train)} files of --train")
    names = {path.stem for path in args.train}
    for option in args.set:
        name = target(option)
        if name is not None and name not in names:
            raise UserError(f"--set {option}: no file of --train is named {name}.yml{nearest(name, names)}")
    return [training(args, path, share) for path, share in zip(args.train, shares, strict=True)]


def training(args: argparse.Namespace, path: Path, share: float) -> Job:
    changes = [f"device={args.device}"]
    for option in args.set:
        if target(option) in (None, path.stem):
            changes.append(option.partition(":")[2] if target(option) else option)
    config = load(path, changes, TrainConfig)  # mistakes are reported before the first job runs
    words = [word for change in changes for word in ("--set", change)]
    command = python("scripts.gpu_kit.train", str(path), "--seconds", "@SECONDS", "--out", "@FOLDER", *words)
    folder = config.root / config.name
    return Job(f"train_{path.stem}", f"training of {path.name}", command, None, share, folder, (0, REQUEUE))


def gpu_test_files() -> list[Path]:
    """The files of tests/gpu, slow ones last."""
    files = sorted((ROOT / "tests/gpu").glob("test_*.py"))
    return sorted(files, key=lambda path: path.name in SLOW_TESTS)
