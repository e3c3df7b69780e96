"""Check a VFHQ or VFHQ-Test tree, list its clips for training, and write a smaller copy of it.

    keep-data prepare VFHQ/frames --landmarks VFHQ/landmarks --index VFHQ/meta_info.txt
    keep-data prepare VFHQ-Test/GT --out VFHQ-Test/GT256 --size 256

The expected layout is that of VFHQ's extraction script and of KEEP's public dataset code:

    ROOT/CLIP/00000000.png          frames, numbered without gaps, all of one size, square, with even sides;
                                    CLIP is Clip+VIDEO+P0+C0+F100-250: source, person, clip, frames of the source
    LANDMARKS/CLIP.txt              five points for every frame, in either layout that keep.data.vfhq reads
    META_INFO                       lines CLIP/NUMBER_OF_FRAMES: the clips that should exist

Every image is decoded (``--fast`` reads only headers). Problems and notes (oddities that do not prevent training) are
listed one a line; the exit status is 1 if there is a problem. ``--index`` writes a META_INFO file of the clips without
a problem. ``--out`` writes their frames, landmarks and META_INFO at another size; a clip's folder appears when it is
complete, and a repeated command skips complete clips.
"""  # fmt: skip

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import TypeVar

from keep.config import arguments
from keep.config.cli import Parser, check_apart, check_folder, check_output, run
from keep.data.tools.prepare_checks import SHOWN, CheckedClip, check_clip, clip_folders, missing_clips, unused_landmarks
from keep.data.tools.prepare_copy import copy_clip
from keep.data.vfhq import read_meta_info
from keep.utils.errors import UserError
from keep.utils.io import write_file
from keep.utils.lock import lock
from keep.utils.progress import progress_bar

T = TypeVar("T")


def prepare(argv: Sequence[str] | None) -> int:
    args = parse(argv)
    check_folder(args.root)
    if args.landmarks is not None:
        check_folder(args.landmarks)
    expected = read_meta_info(args.meta_info) if args.meta_info else None
    names = clip_folders(args.root)
    if not names:
        raise UserError(f"{args.root}: holds no folders of images; expected {args.root}/CLIP/00000000.png")

    check = partial(check_clip, args.root, args.landmarks, expected, args.fast)
    clips = list(map_clips(check, names, "checking", args.workers))
    missing = missing_clips(names, expected)
    good = [clip for clip in clips if not clip.problems]
    if args.out:
        with lock(args.out):
            args.out.mkdir(parents=True, exist_ok=True)
            copy = partial(copy_clip, args.root, args.landmarks, args.out, args.size)
            list(map_clips(copy, [clip.name for clip in good], "resizing", args.workers))
            write_index(args.out / "meta_info.txt", good)
    if args.index:
        write_index(args.index, good)

    for clip in clips:
        for problem in clip.problems:
            print(f"problem: {clip.name}: {problem}")
        for note in clip.notes:
            print(f"note: {clip.name}: {note}")
    for line in (*missing, *unused_landmarks(names, args.landmarks)):
        print(line)
    print(summarize(clips, args))
    return 1 if missing or len(good) < len(clips) else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = Parser(prog="keep-data prepare", description="Check, list and resize a VFHQ tree.")
    p.add_argument("root", type=Path, help="folder of the clips' folders")
    p.add_argument("--landmarks", type=Path, metavar="FOLDER", help="folder of landmark files, one a clip")
    p.add_argument("--meta-info", type=Path, metavar="FILE", help="text file of the clips that should exist")
    p.add_argument(
        "--index", type=Path, metavar="FILE", help="write a list of the usable clips, CLIP/NUMBER_OF_FRAMES a line"
    )
    p.add_argument("--out", type=Path, metavar="FOLDER", help="write resized frames here")
    p.add_argument(
        "--size",
        type=arguments.side,
        default=512,
        metavar="PX",
        help="shorter side of the resized frames (default 512)",
    )
    p.add_argument("--fast", action="store_true", help="read only the headers of images")
    p.add_argument(
        "--workers", type=arguments.processes, default=0, metavar="N", help="additional processes (default 0)"
    )
    args = p.parse_args(argv)
    if args.size < 16 or args.size % 2:
        raise UserError(f"--size must be even and at least 16, got {args.size}")
    if args.out and args.out.resolve() in (args.root.resolve(), *args.root.resolve().parents):
        raise UserError(f"--out {args.out} contains {args.root}: choose another folder")
    if args.out:
        check_apart(args.root, args.out)
        check_output(args.out)
    return args


def map_clips(work: Callable[[str], T], names: list[str], title: str, workers: int) -> Iterator[T]:
    """The results of ``work`` for all names, in order, with a progress bar."""
    with progress_bar(total=len(names), desc=title, unit=" clips", delay=2) as bar:
        if workers == 0:
            for name in names:
                yield work(name)
                bar.update()
            return
        try:
            with ProcessPoolExecutor(workers) as pool:
                for result in pool.map(work, names, chunksize=4):
                    yield result
                    bar.update()
        except BrokenProcessPool:
            raise UserError(
                "a worker process was ended by the system, most often because memory ran out: lower --workers"
            ) from None


def write_index(path: Path, clips: list[CheckedClip]) -> None:
    """Write a META_INFO file."""
    write_file(path, "".join(f"{clip.name}/{clip.frames}\n" for clip in clips).encode())


def summarize(clips: list[CheckedClip], args: argparse.Namespace) -> str:
    good = [clip for clip in clips if not clip.problems]
    sizes = Counter(f"{c.size[1]}x{c.size[0]}" for c in clips if c.size)
    lines = [
        f"{args.root}: {len(clips)} clips, {sum(c.frames for c in clips)} frames; "
        f"{len(good)} clips without a problem, {sum(c.frames for c in good)} frames",
        f"frame sizes: {', '.join(f'{s} ({n} clips)' for s, n in sizes.most_common(SHOWN)) or 'none'}"
        + (f" and {len(sizes) - SHOWN} more sizes" if len(sizes) > SHOWN else ""),
    ]
    if args.out:
        landmarks = f", landmarks {args.out / 'landmarks'}" if args.landmarks else ""
        lines.append(f"written: root {args.out / 'frames'}{landmarks}, meta_info {args.out / 'meta_info.txt'}")
    if args.index:
        lines.append(f"written: {args.index}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    return run(prepare, argv)
