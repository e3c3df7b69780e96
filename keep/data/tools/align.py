"""Cut the largest face out of photographs and videos, aligned and at one size, as training data.

    keep-data align portraits faces/images --size 256
    keep-data align videos faces/videos --size 256

A photograph becomes a PNG. A video becomes one video for each shot, its landmarks smoothed over time (eq. (10)). For
long raw videos with several people see ``keep-data collect``. Files without a usable face are listed. The exit status
is 1 if nothing was written.
"""  # fmt: skip

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path

import cv2
import numpy as np

from keep.config import arguments
from keep.config.cli import Parser, check_apart, check_folder, check_output, network, run
from keep.config.registry import DETECTORS
from keep.data.images import IMAGE_SUFFIXES, read_images
from keep.data.video_io import VIDEO_SUFFIXES, iter_video, probe, write_video
from keep.faces.align import crop, scale_of, similarity
from keep.faces.detect import default_detector, largest_faces
from keep.faces.shots import shot_cuts
from keep.faces.smooth import fill_gaps, smooth
from keep.utils.errors import UserError
from keep.utils.io import write_file
from keep.utils.lock import lock
from keep.utils.pictures import encode_image
from keep.utils.progress import progress_bar

GAP = 10
"""Longest gap without a face, in frames, that is filled; shots with a longer one are skipped."""


def align(argv: Sequence[str] | None) -> int:
    args = parse(argv)
    with lock(args.out):
        return align_folder(args)


def align_folder(args: argparse.Namespace) -> int:
    detector = network(DETECTORS, args.detector) if args.detector else default_detector()
    paths = [p for p in sorted(args.root.rglob("*")) if p.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES]
    if not paths:
        raise UserError(f"{args.root}: holds no photographs and no videos")
    doubles = {p for p, n in Counter(p.with_suffix("") for p in paths).items() if n > 1}
    skipped, written = [], 0
    for path in progress_bar(paths, desc="aligning faces", unit=" files", delay=2):
        target = args.out / path.relative_to(args.root)
        if path.with_suffix("") in doubles:  # a.jpg beside a.png
            target = target.with_name(f"{path.stem}_{path.suffix[1:]}{path.suffix}")
        try:
            if path.suffix.lower() in IMAGE_SUFFIXES:
                write_file(target.with_suffix(".png"), encode_image(align_photograph(path, detector, args), "png"))
                written += 1
            else:
                written += len(align_video(path, target, detector, args))
        except UserError as error:
            skipped.append(str(error))
    print(f"{args.out}: {written} written, {len(skipped)} files skipped")
    for line in skipped:
        print(f"  {line}")
    return 0 if written else 1


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = Parser(prog="keep-data align", description="Cut the largest face out of photographs and videos, aligned.")
    p.add_argument("root", type=Path, help="folder of photographs and videos; its subfolders are searched too")
    p.add_argument("out", type=Path, help="folder to write, with the same subfolders")
    p.add_argument("--detector", metavar="NAME[=FILE]", help="face detector; default: the best available one")
    p.add_argument("--size", type=arguments.side, default=512, help="side of the crops in pixels (512)")
    p.add_argument(
        "--largest",
        type=arguments.number(0, 1000, above=True),
        default=2.0,
        help="skip faces that would be enlarged more than this (2)",
    )
    p.add_argument("--crf", type=arguments.crf, default=12, help="H.264 quality of the videos, lower is better (12)")
    p.add_argument("--min-frames", type=arguments.count, default=30, help="skip shorter shots (30)")
    p.add_argument("--max-frames", type=arguments.count, help="use only the first frames of each video, this many")
    args = p.parse_args(argv)
    check_folder(args.root)
    check_apart(args.root, args.out)
    check_output(args.out)
    return args


def align_photograph(path: Path, detector, args: argparse.Namespace) -> np.ndarray:
    """The aligned face, uint8 (size, size, 3) RGB.

    Raises:
        UserError: no face, or only a small one.
    """
    frame = read_images([path])[0]
    faces = detector(frame)
    if not faces:
        raise UserError(f"{path}: no face found")
    matrix = similarity(faces[0].points, args.size)
    refuse_small(path, matrix, args)
    return crop(frame, matrix, args.size, border="reflect")


def align_video(path: Path, target: Path, detector, args: argparse.Namespace) -> list[Path]:
    """Write the aligned shots of a video beside ``target``; returns their files.

    Raises:
        UserError: no usable shot, or a small face.
    """
    info = probe(path)
    frames = min(info.frames, args.max_frames or info.frames)
    starts = [0, *shot_cuts(frames_between(path, 0, frames)), frames]
    written: list[Path] = []
    faces = 0
    for number, (start, end) in enumerate(pairwise(starts)):
        if end - start < args.min_frames:
            continue
        _, points = largest_faces(detector, frames_between(path, start, end), progress=True)
        faces += int(np.isfinite(points[:, 0, 0]).sum())
        points = smooth(fill_gaps(points, limit=GAP))
        if np.isnan(points).any():
            continue
        matrices = [similarity(p, args.size) for p in points]
        refuse_small(path, matrices[0], args)
        crops = (
            crop(frame, matrix, args.size, border="reflect")
            for frame, matrix in zip(frames_between(path, start, end), matrices, strict=True)
        )
        name = target.with_name(f"{target.stem}_{number}.mp4" if len(starts) > 2 else f"{target.stem}.mp4")
        name.parent.mkdir(parents=True, exist_ok=True)
        write_video(name, crops, info.fps, crf=args.crf)
        written.append(name)
    if not written and longest(starts) < args.min_frames:
        raise UserError(f"{path}: too short: its longest shot has {longest(starts)} frames of {args.min_frames}")
    if not written and not faces:
        raise UserError(f"{path}: no face found")
    if not written:
        raise UserError(f"{path}: no shot of {args.min_frames} frames has a face throughout")
    return written


def longest(starts: Sequence[int]) -> int:
    """Frames of the longest shot."""
    return max(end - start for start, end in pairwise(starts))


def frames_between(path: Path, start: int, end: int) -> Iterator[np.ndarray]:
    return islice(iter_video(path), start, end)


def refuse_small(path: Path, matrix: np.ndarray, args: argparse.Namespace) -> None:
    """Raise UserError if a crop would enlarge the face more than ``--largest``."""
    if (scale := scale_of(matrix)) > args.largest:
        raise UserError(f"{path}: the face is small: it would be enlarged {scale:.1f} times (--largest {args.largest})")


def main(argv: Sequence[str] | None = None) -> int:
    cv2.setNumThreads(1)
    return run(align, argv)
