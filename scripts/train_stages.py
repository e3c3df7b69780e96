"""Train stages I, II and III one after another, in one command that can be stopped and given again.

    python -m scripts.train_stages options/small
    python -m scripts.train_stages options/nano --processes 2 --set data.train.root=faces.zip
    python -m scripts.train_stages options/small --set 1:model.perceptual.weights=squeezenet1_1.pth \\
        --set 3:model.perceptual.weights=squeezenet1_1.pth --minutes 25

FOLDER holds ``stage1.yml``, ``stage2.yml`` and ``stage3.yml``. Each goes on from its newest checkpoint; what is
finished is left as it is. ``--set`` passes an option to all stages, or after ``N:`` to stage N. After ``--minutes``
the stage that is running is asked to stop. Exit status: 0 all is trained; 75 stopped and saved, give the same command
again; otherwise that of the stage that failed.
"""  # fmt: skip

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from keep.cli import run
from keep.errors import UserError
from keep.signals import REQUEUE
from scripts.arguments import Parser

STAGES = (1, 2, 3)


def main(argv: Sequence[str] | None) -> int:
    args = parse(argv)
    end = time.monotonic() + 60 * args.minutes if args.minutes else None
    for stage in STAGES:
        status = train(command(args, stage), end)
        if status:
            return status
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = Parser(prog="scripts.train_stages", description="train stages I, II and III, resumably")
    p.add_argument("folder", type=Path, help="folder of stage1.yml, stage2.yml and stage3.yml")
    p.add_argument("--processes", type=int, default=1, help="processes of each stage: one a GPU, or one a CPU core (1)")
    p.add_argument(
        "--set", action="append", default=[], metavar="[N:]KEY=VALUE", help="option of all stages, or of stage N"
    )
    p.add_argument("--minutes", type=float, help="stop after so many minutes (default: when all is trained)")
    args = p.parse_args(argv)
    missing = [n for n in STAGES if not (args.folder / f"stage{n}.yml").is_file()]
    if missing:
        raise UserError(f"{args.folder}: has no stage{missing[0]}.yml")
    if args.processes < 1 or (args.minutes is not None and args.minutes <= 0):
        raise UserError("--processes must be at least 1, and --minutes more than 0")
    return args


def command(args: argparse.Namespace, stage: int) -> list[str]:
    """The command line that trains one stage."""
    start = [sys.executable, "-m"]
    if args.processes > 1:
        start += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(args.processes), "-m"]
    line = [*start, "keep.train", "-opt", str(args.folder / f"stage{stage}.yml"), "--auto-resume"]
    for option in args.set:
        number, colon, own = option.partition(":")
        if not (colon and number.isdecimal()):
            line += ["--set", option]
        elif int(number) == stage:
            line += ["--set", own]
    return line


def train(line: Sequence[str], end: float | None) -> int:
    """Run it, at most until ``end`` (monotonic seconds); its exit status, 75 where it was stopped."""
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
