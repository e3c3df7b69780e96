"""From a folder of videos to everything that the three stages and a test need.

    keep-data quickstart videos --size 128 -o mine
    keep-data quickstart videos --size 96 -o mine --steps 400 300 100      # a short run
    keep-data quickstart clips --size 256 -o mine --aligned                # square clips of aligned faces: no detection

Cuts out and aligns the largest face of every video; square clips of a face that is aligned already are taken as they
are. People are held out for validation and test: a person is a video, or all videos in one subfolder of FOLDER. Writes

    OUT/clips/VIDEO.mp4                    the aligned clips, to look at
    OUT/train.zip, val.zip, test.zip       the same at --size, packed, each person in one of them
    OUT/stage1.yml, stage2.yml, stage3.yml, test.yml
    OUT/quickstart.json                    what became of each video, by which detector, and who is where

and prints the four commands that follow. After an interruption, or when too few videos had a face, run the command
again: aligned videos are kept. A finished folder is not changed; without its test.yml the command writes its options
again, for other --steps.
"""  # fmt: skip

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2

from keep.config import arguments
from keep.config.cli import Parser, check_apart, check_folder, check_output, run
from keep.data.tools.quickstart_clips import Record, align_videos, people_of
from keep.data.tools.quickstart_options import RECIPES, duration, write_options
from keep.data.tools.quickstart_parts import hold_out, pack_parts
from keep.utils.errors import UserError
from keep.utils.lock import lock
from keep.utils.tables import console_table


def quickstart(argv: Sequence[str] | None) -> None:
    args = parse(argv)
    with lock(args.out):
        make(args)


def make(args: argparse.Namespace) -> None:
    record = Record(args)
    try:
        align_videos(record, args)
    finally:
        for line in record.problems():
            print(f"skipped: {line}", file=sys.stderr)
    people = people_of(record)
    parts = hold_out(list(people), args.folder)
    rows = pack_parts(parts, people, args)
    record.finish(parts)
    write_options(args)
    print(origin_line(record))
    print_summary(rows, args)


def origin_line(record: Record) -> str:
    """How many videos were aligned, by which detector, and how many were copied."""
    aligned, copied = record.count("aligned"), record.count("copied")
    by = f" by {record.detector['name']}" if record.detector and aligned else ""
    return f"videos: {aligned} aligned{by}, {copied} copied as aligned already"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = Parser(prog="keep-data quickstart", description="From a folder of videos to everything that training needs.")
    p.add_argument("folder", type=Path, help="folder of videos; its subfolders are searched too")
    p.add_argument("-o", "--out", type=Path, required=True, help="folder to write")
    p.add_argument("--size", type=int, choices=sorted(RECIPES), required=True, help="side of the faces in pixels")
    p.add_argument(
        "--steps", type=arguments.count, nargs=3, metavar=("I", "II", "III"),
        help="steps of the three stages (default: those of the recipe, some hours on a CPU)",
    )  # fmt: skip
    p.add_argument(
        "--aligned", action="store_true", help="all videos are square clips of aligned faces: take them as they are"
    )
    p.add_argument("--detector", metavar="NAME[=FILE]", help="face detector; default: the best available one")
    p.add_argument("--max-frames", type=arguments.count, default=300, help="use the first frames of each video (300)")
    p.add_argument("--min-frames", type=arguments.count, default=30, help="skip shorter shots (30)")
    p.add_argument(
        "--largest", type=arguments.number(0, 1000, above=True), default=2.0,
        help="skip faces that would be enlarged more than this (2)",
    )  # fmt: skip
    args = p.parse_args(argv)
    check_folder(args.folder)
    check_apart(args.folder, args.out)
    check_output(args.out)
    if (args.out / "test.yml").exists():
        raise UserError(
            f"{args.out}: is finished; for other --steps remove {args.out / 'test.yml'} and repeat the command, the "
            "clips stay; or name another folder with -o"
        )
    args.steps = tuple(args.steps or RECIPES[args.size].steps)
    return args


def print_summary(rows: Sequence[Mapping[str, Any]], args: argparse.Namespace) -> None:
    print(console_table(rows, ["part", "people", "clips", "frames", "MB", "names"], digits=1))
    hours = duration(args)
    print(f"\nNext, in this folder (training on two CPU cores: very roughly {hours}; --steps changes that):\n")
    for command in commands(args.out):
        print(f"  {command}")


def commands(out: Path) -> list[str]:
    """The four commands that follow."""
    files = [("keep-train", f"stage{n}.yml") for n in (1, 2, 3)] + [("keep-test", "test.yml")]
    return [f"{program} -opt {shlex.quote(str(out / name))}" for program, name in files]


def main(argv: Sequence[str] | None = None) -> int:
    cv2.setNumThreads(1)
    return run(quickstart, argv)
