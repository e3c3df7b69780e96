"""Train option files one after another, in one command that can be stopped and repeated.

    python -m scripts.train_stages options/small/stage{1,2_start,2,3}.yml
    python -m scripts.train_stages options/nano/stage{1,2_start,2,3}.yml --processes 2 --set data.train.root=faces.zip
    python -m scripts.train_stages options/small/stage{1,2_start,2,3}.yml --minutes 25 \\
        --set stage1:model.perceptual.weights=squeezenet1_1.pth --set stage3:model.perceptual.weights=squeezenet1_1.pth

Each run resumes from its newest checkpoint; finished runs are skipped. ``--set`` passes an option to all files, or with
``NAME:`` to NAME.yml only. After ``--minutes`` the current run saves and stops. Exit status: 0 all runs are finished;
75 stopped and saved, repeat the command to resume; otherwise that of the run that failed.
"""  # fmt: skip

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from keep.config import arguments
from keep.config.cli import Parser, run
from keep.utils.errors import UserError, nearest
from keep.utils.signals import REQUEUE


def main(argv: Sequence[str] | None) -> int:
    args = parse(argv)
    end = time.monotonic() + 60 * args.minutes if args.minutes else None
    for path in args.options:
        status = run_until(command(args, path), end)
        if status:
            return status
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = Parser(prog="scripts.train_stages", description="Train option files one after another, resumably.")
    p.add_argument("options", type=Path, nargs="+", metavar="YML", help="option files, in the order of training")
    p.add_argument(
        "--processes",
        type=arguments.whole(1, 1024),
        default=1,
        help="processes of each run: one for each GPU or CPU core (1)",
    )
    p.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="[NAME:]KEY=VALUE",
        help="override an option of all files, or of NAME.yml",
    )
    p.add_argument(
        "--minutes", type=arguments.number(0, 1e9, above=True), help="stop after this many minutes (default: no limit)"
    )
    args = p.parse_args(argv)
    for path in args.options:
        if not path.is_file():
            raise UserError(f"{path}: no such options file")
    names = {path.stem for path in args.options}
    for option in args.set:
        name = target(option)
        if name is not None and name not in names:
            raise UserError(f"--set {option}: no options file is named {name}.yml{nearest(name, names)}")
    return args


def target(option: str) -> str | None:
    """The NAME of ``NAME:KEY=VALUE``; None for ``KEY=VALUE``, which goes to all files."""
    name, colon, _ = option.partition("=")[0].partition(":")
    return name if colon else None


def command(args: argparse.Namespace, path: Path) -> list[str]:
    """The command line that trains one options file."""
    start = [sys.executable, "-m"]
    if args.processes > 1:
        start += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(args.processes), "-m"]
    line = [*start, "keep.train", "-opt", str(path), "--auto-resume"]
    for option in args.set:
        if target(option) in (None, path.stem):
            line += ["--set", option.partition(":")[2] if target(option) else option]
    return line


def run_until(line: Sequence[str], end: float | None) -> int:
    """Run a command, at most until ``end`` (monotonic seconds); returns its exit status, 75 after a stop."""
    print(f"\n$ {' '.join(['python', *line[1:]])}", flush=True)
    process = subprocess.Popen(line, start_new_session=True)
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        os.killpg(process.pid, signal.SIGTERM)  # the launcher and its ranks: each saves, then ends

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while True:
            try:
                status = process.wait(None if end is None or stopped else max(0.0, end - time.monotonic()))
                break
            except subprocess.TimeoutExpired:
                stop()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return REQUEUE if stopped else status


if __name__ == "__main__":
    sys.exit(run(main))
