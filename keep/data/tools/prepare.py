"""Check a VFHQ or VFHQ-Test tree, list its clips for training, and make a smaller copy of it if asked.

    keep-data prepare VFHQ/frames --landmarks VFHQ/landmarks --index VFHQ/meta_info.txt
    keep-data prepare VFHQ-Test/GT --out VFHQ-Test/GT256 --size 256

What is looked at, with the layout that is expected (as VFHQ's own extraction script and KEEP's public dataset code
read it):

    ROOT/CLIP/00000000.png          frames, numbered without gaps, all of one size, square, with even sides;
                                    CLIP is Clip+VIDEO+P0+C0+F100-250: source, person, clip, frames of the source
    LANDMARKS/CLIP.txt              five points for every frame, in either layout that keep.data.vfhq reads
    META_INFO                       lines CLIP/NUMBER_OF_FRAMES; here: which clips there should be

Every image is decoded (``--fast`` reads headers only). Problems are listed one a line, and the exit status is 1 if
there is any; what is merely odd is listed as a note. ``--index`` writes the clips without a problem as such a
META_INFO file. ``--out`` writes their frames, landmarks and list anew at another size; a clip's folder appears when
it is finished, and clips that are done stay when it is run again.
"""  # fmt: skip

import argparse
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from keep.config.cli import Parser, check_output, run
from keep.data.images import IMAGE_SUFFIXES, by_number, read_images
from keep.data.vfhq import read_landmarks, read_meta_info
from keep.utils.errors import UserError
from keep.utils.io import AtomicWrite, remove_leftovers, write_file
from keep.utils.visual import encode_image

T = TypeVar("T")
SHOWN = 5  # items of a list that a message names


@dataclass
class Clip:
    """One folder of frames: what it holds, and what is wrong with it.

    Attributes:
        name: its path below the root.
        frames: how many images it has.
        size: (height, width) of the first.
        problems: why it cannot be used.
        notes: what is odd about it.
    """

    name: str
    frames: int = 0
    size: tuple[int, int] | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def prepare(argv: Sequence[str] | None) -> int:
    args = parse(argv)
    if not args.root.is_dir():
        raise UserError(f"{args.root}: no such folder")
    if args.landmarks is not None and not args.landmarks.is_dir():
        raise UserError(f"{args.landmarks}: no such folder")
    expected = read_meta_info(args.meta_info) if args.meta_info else None
    names = clip_folders(args.root)
    if not names:
        raise UserError(f"{args.root}: holds no folders of images; expected {args.root}/CLIP/00000000.png")

    check = partial(check_clip, args.root, args.landmarks, expected, args.fast)
    clips = list(over(names, check, "checking", args.workers))
    strays = [*missing(names, expected), *unused_landmarks(names, args.landmarks)]
    good = [clip for clip in clips if not clip.problems]
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        copy = partial(copy_clip, args.root, args.landmarks, args.out, args.size)
        list(over([clip.name for clip in good], copy, "resizing", args.workers))
        write_index(args.out / "meta_info.txt", good)
    if args.index:
        write_index(args.index, good)

    for clip in clips:
        for problem in clip.problems:
            print(f"problem: {clip.name}: {problem}")
        for note in clip.notes:
            print(f"note: {clip.name}: {note}")
    for stray in strays:
        print(stray)
    print(summary(clips, args))
    return 1 if len(good) < len(clips) or any(s.startswith("problem") for s in strays) else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = Parser(prog="keep-data prepare", description="check, list and resize a VFHQ tree")
    p.add_argument("root", type=Path, help="folder of the clips' folders")
    p.add_argument("--landmarks", type=Path, metavar="FOLDER", help="folder of landmark files, one a clip")
    p.add_argument("--meta-info", type=Path, metavar="FILE", help="text file of the clips that should be there")
    p.add_argument("--index", type=Path, metavar="FILE", help="write the usable clips as CLIP/NUMBER_OF_FRAMES")
    p.add_argument("--out", type=Path, metavar="FOLDER", help="write resized frames here")
    p.add_argument("--size", type=int, default=512, metavar="PX", help="their shorter side (default 512)")
    p.add_argument("--fast", action="store_true", help="read the images' headers only")
    p.add_argument("--workers", type=int, default=0, metavar="N", help="processes beside this one (default 0)")
    args = p.parse_args(argv)
    if args.size < 16 or args.size % 2:
        raise UserError(f"--size must be even and at least 16, got {args.size}")
    if args.out and args.out.resolve() in (args.root.resolve(), *args.root.resolve().parents):
        raise UserError(f"--out {args.out} holds {args.root}: choose another folder")
    if args.out:
        check_output(args.out)
    return args


def clip_folders(root: Path) -> list[str]:
    """Names of the folders below ``root`` that hold images, in order."""
    names = []
    for folder, below, files in os.walk(root, followlinks=True):
        below[:] = [b for b in below if not b.startswith(".")]
        if Path(folder) != root and any(is_frame(f) for f in files):
            names.append(Path(folder).relative_to(root).as_posix())
    return sorted(names, key=by_number)


def is_frame(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")


def over(names: list[str], work: Callable[[str], T], title: str, workers: int) -> Iterator[T]:
    """``work`` of each name, in order, under a progress bar."""
    with tqdm(total=len(names), desc=title, unit=" clips", delay=2) as bar:
        if workers == 0:
            for name in names:
                yield work(name)
                bar.update()
            return
        with ProcessPoolExecutor(workers) as pool:
            for result in pool.map(work, names, chunksize=4):
                yield result
                bar.update()


# --- checks ---------------------------------------------------------------------------------------------------


def check_clip(root: Path, landmarks: Path | None, expected: dict[str, int] | None, fast: bool, name: str) -> Clip:
    """Everything about one clip."""
    folder, clip = root / name, Clip(name)
    files = sorted((f.name for f in folder.iterdir() if f.is_file() and not f.name.startswith(".")), key=by_number)
    frames = [f for f in files if is_frame(f)]
    clip.frames = len(frames)
    others = [f for f in files if not is_frame(f)]
    if others:
        clip.notes.append(f"{len(others)} files are no frames: {some(others)}")
    check_numbers(clip, frames)
    check_images(clip, [folder / f for f in frames], fast)
    check_counts(clip, expected)
    if landmarks is not None:
        check_landmarks(clip, frames, landmarks / f"{Path(name).name}.txt")
    return clip


def check_numbers(clip: Clip, frames: list[str]) -> None:
    odd = [f for f in frames if not Path(f).stem.isdecimal()]
    if odd:
        clip.problems.append(f"{len(odd)} frames are not named by a number: {some(odd)}")
        return
    numbers = [int(Path(f).stem) for f in frames]
    double = [n for n, times in Counter(numbers).items() if times > 1]
    if double:
        clip.problems.append(f"{len(double)} frame numbers occur twice: {some(double)}")
    gaps = [n for n in range(min(numbers), max(numbers)) if n not in set(numbers)]
    if gaps:
        clip.problems.append(f"{len(gaps)} frames are missing between {min(numbers)} and {max(numbers)}: {some(gaps)}")
    if len({len(Path(f).stem) for f in frames}) > 1:
        clip.notes.append("frame numbers have different widths; they are read in the order of the numbers")


def check_images(clip: Clip, paths: list[Path], fast: bool) -> None:
    sizes: dict[tuple[int, int], list[str]] = {}
    bad = []
    for path in paths:
        size = image_size(path, fast)
        if size is None:
            bad.append(path.name)
        else:
            sizes.setdefault(size, []).append(path.name)
    if bad:
        clip.problems.append(f"{len(bad)} images cannot be read: {some(bad)}")
    if not sizes:
        return
    clip.size = max(sizes, key=lambda s: len(sizes[s]))
    height, width = clip.size
    others = [f for size, files in sizes.items() if size != clip.size for f in files]
    if others:
        clip.problems.append(f"{len(others)} frames are not {width}x{height} as the others: {some(others)}")
    if height != width:
        clip.notes.append(f"frames are {width}x{height}, not square: their central square is used without landmarks")
    elif height % 2:
        clip.notes.append(f"frames are {width}x{height}, an odd side")


def image_size(path: Path, fast: bool) -> tuple[int, int] | None:
    """(height, width) of an image; None if it cannot be read."""
    try:
        with Image.open(path) as image:
            if not fast:
                image.load()  # OpenCV fills what a truncated file lacks with grey and says nothing; PIL refuses it
            return image.height, image.width
    except (OSError, SyntaxError, ValueError):
        return None


def check_counts(clip: Clip, expected: dict[str, int] | None) -> None:
    named = re.search(r"\+F(\d+)-(\d+)$", clip.name)
    if named:
        # VFHQ's script takes the frames between the two, both left out.
        should = int(named[2]) - int(named[1]) - 1
        if clip.frames != should:
            clip.notes.append(f"has {clip.frames} frames, by its name {should}")
    if expected is None:
        return
    if clip.name not in expected:
        clip.notes.append("is not in the list of clips")
    elif clip.frames != expected[clip.name]:
        clip.problems.append(f"has {clip.frames} frames, the list of clips says {expected[clip.name]}")


def check_landmarks(clip: Clip, frames: list[str], path: Path) -> None:
    if not path.is_file():
        clip.problems.append(f"has no landmarks: there is no {path}")
        return
    if clip.size is None:
        return
    try:
        points = read_landmarks(path, frames, clip.size)
    except UserError as error:
        clip.problems.append(str(error))
        return
    without = [f for f, p in zip(frames, points, strict=True) if not np.isfinite(p).all()]
    if without:
        clip.problems.append(f"{len(without)} frames have no landmark row: {some(without)}")
    height, width = clip.size
    with np.errstate(invalid="ignore"):
        outside = ((points < 0) | (points > (width - 1, height - 1))).any(axis=2)
    beyond = np.asarray(outside.sum(axis=1) == points.shape[1])
    if beyond.any():
        clip.problems.append(
            f"all five points lie beyond the frame in {beyond.sum()} frames: {some(pick(frames, beyond))}"
        )
    turned = np.asarray(points[:, 0, 0] > points[:, 1, 0])
    if turned.any():
        clip.notes.append(
            f"the left eye is right of the right one in {turned.sum()} frames: {some(pick(frames, turned))}"
        )


def pick(frames: list[str], which: np.ndarray) -> list[str]:
    return [f for f, w in zip(frames, which, strict=True) if w]


def missing(names: list[str], expected: dict[str, int] | None) -> list[str]:
    """Clips that are listed and not there."""
    return [
        f"problem: {name}: is in the list of clips, but has no folder" for name in expected or () if name not in names
    ]


def unused_landmarks(names: list[str], landmarks: Path | None) -> list[str]:
    if landmarks is None:
        return []
    known = {Path(name).name for name in names}
    files = sorted(f.stem for f in landmarks.glob("*.txt") if f.stem not in known)
    other = "right if they are another split's, as where one folder serves train and val"
    return [f"note: {len(files)} landmark files belong to no clip: {some(files)} ({other})"] if files else []


def some(items: Sequence[object]) -> str:
    """The first few, in words."""
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(str(i) for i in items[:SHOWN]) + more


# --- writing --------------------------------------------------------------------------------------------------


def copy_clip(root: Path, landmarks: Path | None, out: Path, size: int, name: str) -> None:
    """Write one clip's frames with the shorter side ``size``, and its landmarks in pixels of those."""
    target = out / "frames" / name
    paths = sorted((p for p in (root / name).iterdir() if is_frame(p.name)), key=lambda p: by_number(p.name))
    if target.is_dir() and len(list(target.iterdir())) == len(paths):
        return
    shutil.rmtree(target, ignore_errors=True)
    remove_leftovers(target)
    with AtomicWrite(target) as unfinished:
        unfinished.mkdir(parents=True)
        height, width = 0, 0
        for path in paths:
            frame = read_images([path])[0]
            height, width = frame.shape[:2]
            write_file(unfinished / f"{path.stem}.png", encode_image(resized(frame, size), "png"))
        if landmarks is not None:
            points = read_landmarks(landmarks / f"{target.name}.txt", [p.name for p in paths], (height, width))
            scale = np.array(fitted(height, width, size)[::-1]) / (width, height)
            # Pixel centres lie at whole numbers.
            points = (points + 0.5) * scale - 0.5
            rows = (" ".join(f"{v:.3f}" for v in face.ravel()) for face in points)
            lines = [f"{path.stem}.png {row}\n" for path, row in zip(paths, rows, strict=True)]
            write_file(out / "landmarks" / f"{target.name}.txt", "".join(lines))


def resized(frame: np.ndarray, size: int) -> np.ndarray:
    height, width = fitted(frame.shape[0], frame.shape[1], size)
    if (height, width) == frame.shape[:2]:
        return frame
    how = cv2.INTER_AREA if height < frame.shape[0] else cv2.INTER_CUBIC
    return cv2.resize(frame, (width, height), interpolation=how)


def fitted(height: int, width: int, size: int) -> tuple[int, int]:
    """(height, width) whose shorter side is ``size`` and whose longer one is even."""
    scale = size / min(height, width)
    return 2 * round(height * scale / 2), 2 * round(width * scale / 2)


def write_index(path: Path, clips: list[Clip]) -> None:
    write_file(path, "".join(f"{clip.name}/{clip.frames}\n" for clip in clips).encode())


def summary(clips: list[Clip], args: argparse.Namespace) -> str:
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
