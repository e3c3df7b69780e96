"""The checks of ``keep-data prepare``: frames, images and landmarks of a VFHQ tree."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from keep.data.images import IMAGE_SUFFIXES, by_number
from keep.data.vfhq import read_landmarks
from keep.utils.errors import UserError

SHOWN = 5
"""Items of a list that a message names."""


@dataclass
class CheckedClip:
    """One folder of frames and the result of its checks.

    Attributes:
        name: its path below the root.
        frames: number of images.
        size: (height, width) of most images.
        problems: why the clip cannot be used.
        notes: oddities that do not prevent its use.
    """

    name: str
    frames: int = 0
    size: tuple[int, int] | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


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


def check_clip(
    root: Path, landmarks: Path | None, expected: dict[str, int] | None, fast: bool, name: str
) -> CheckedClip:
    """All checks of one clip.

    Args:
        root: folder of the clips' folders.
        landmarks: folder of landmark files; None: no check.
        expected: clip → number of frames, of the list of clips; None: no check.
        fast: read only the headers of images.
        name: the clip.
    """
    folder, clip = root / name, CheckedClip(name)
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


def check_numbers(clip: CheckedClip, frames: list[str]) -> None:
    """Frames are numbered without gaps."""
    unnumbered = [f for f in frames if not Path(f).stem.isdecimal()]
    if unnumbered:
        clip.problems.append(f"{len(unnumbered)} frames are not named by a number: {some(unnumbered)}")
        return
    numbers = [int(Path(f).stem) for f in frames]
    double = [n for n, count in Counter(numbers).items() if count > 1]
    if double:
        clip.problems.append(f"{len(double)} frame numbers occur twice: {some(double)}")
    gaps = [n for n in range(min(numbers), max(numbers)) if n not in set(numbers)]
    if gaps:
        clip.problems.append(f"{len(gaps)} frames are missing between {min(numbers)} and {max(numbers)}: {some(gaps)}")
    if len({len(Path(f).stem) for f in frames}) > 1:
        clip.notes.append("frame numbers have different widths; they are read in the order of the numbers")


def check_images(clip: CheckedClip, paths: list[Path], fast: bool) -> None:
    """Images can be read and have one size."""
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
                image.load()  # PIL rejects a truncated file; OpenCV would fill it with grey
            return image.height, image.width
    except (OSError, SyntaxError, ValueError):
        return None


def check_counts(clip: CheckedClip, expected: dict[str, int] | None) -> None:
    """The number of frames agrees with the clip's name and with the list of clips."""
    named = re.search(r"\+F(\d+)-(\d+)$", clip.name)
    if named:
        # VFHQ's script takes the frames between the two, without both ends.
        stated = int(named[2]) - int(named[1]) - 1
        if clip.frames != stated:
            clip.notes.append(f"has {clip.frames} frames, by its name {stated}")
    if expected is None:
        return
    if clip.name not in expected:
        clip.notes.append("is not in the list of clips")
    elif clip.frames != expected[clip.name]:
        clip.problems.append(f"has {clip.frames} frames, but {expected[clip.name]} in the list of clips")


def check_landmarks(clip: CheckedClip, frames: list[str], path: Path) -> None:
    """Every frame has five points, inside the frame and not mirrored."""
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
    missing = [f for f, p in zip(frames, points, strict=True) if not np.isfinite(p).all()]
    if missing:
        clip.problems.append(f"{len(missing)} frames have no landmark row: {some(missing)}")
    height, width = clip.size
    with np.errstate(invalid="ignore"):
        outside = ((points < 0) | (points > (width - 1, height - 1))).any(axis=2)
    beyond = pick(frames, np.asarray(outside.sum(axis=1) == points.shape[1]))
    if beyond:
        clip.problems.append(f"all five points are outside the frame in {len(beyond)} frames: {some(beyond)}")
    mirrored = pick(frames, np.asarray(points[:, 0, 0] > points[:, 1, 0]))
    if mirrored:
        clip.notes.append(f"the left eye is right of the right eye in {len(mirrored)} frames: {some(mirrored)}")


def pick(frames: list[str], which: np.ndarray) -> list[str]:
    return [f for f, w in zip(frames, which, strict=True) if w]


def missing_clips(names: list[str], expected: dict[str, int] | None) -> list[str]:
    """A line for each clip that is in the list of clips but has no folder."""
    return [
        f"problem: {name}: is in the list of clips, but has no folder" for name in expected or () if name not in names
    ]


def unused_landmarks(names: list[str], landmarks: Path | None) -> list[str]:
    """A line on landmark files that belong to no clip, if there are any."""
    if landmarks is None:
        return []
    known = {Path(name).name for name in names}
    files = sorted(f.stem for f in landmarks.glob("*.txt") if f.stem not in known)
    hint = "expected where one folder serves train and val"
    return [f"note: {len(files)} landmark files belong to no clip: {some(files)} ({hint})"] if files else []


def some(items: Sequence[object]) -> str:
    """The first few items, and how many more there are."""
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(str(i) for i in items[:SHOWN]) + more
