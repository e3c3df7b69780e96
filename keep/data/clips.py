"""Datasets of clips: a clip is drawn, cut to a square, resized, and degraded, all from (seed, position)."""

import json
import os
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
from pydantic import Field
from torch.utils.data import Dataset
from tqdm import tqdm

from keep.data.video_io import VIDEO_SUFFIXES, probe, read_video
from keep.degradation.pipeline import Pipeline
from keep.errors import UserError
from keep.registry import DATASETS, DEGRADATIONS

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})


@dataclass(frozen=True)
class Clip:
    """One source clip: its name, its frame count, and where it is (a video, or its frame images in order)."""

    name: str
    frames: int
    source: Path | tuple[Path, ...]


class ClipDataset(Dataset[dict[str, Any]], ABC):
    """Base of the two datasets: they differ in how they find clips and read frames.

    ``dataset[seed, i]`` is a dict:

    - ``gt``: uint8 (T, 3, size, size) RGB;
    - ``lq``: uint8 (T, 3, h, w) RGB, the degraded clip; absent without ``degradation``;
    - ``name``: the clip's path below ``root``, without suffix;
    - ``degradation``: JSON of what was drawn, ``"[]"`` without ``degradation``.

    All that is random in it is a function of (seed, i). While training (``clip_length`` set), i is the position
    in the whole run, without end: every ``len(dataset)`` positions visit each clip once, in a fresh order. With
    ``clip_length`` None, i is the clip's number and the clip is whole.

    Raises:
        UserError: nothing found under ``root``; a clip too short; options that contradict each other.
    """

    def __init__(
        self,
        root: str,
        clip_length: Annotated[int, Field(ge=1)] | None = None,
        size: Annotated[int, Field(ge=1)] = 512,
        interval: tuple[Annotated[int, Field(ge=1)], ...] = (1,),
        reverse: bool = False,
        flip: bool = False,
        tone_jitter: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] = (0.0, 0.0),
        degradation: tuple[Annotated[Any, DEGRADATIONS], ...] = (),
        max_frames: Annotated[int, Field(ge=1)] | None = None,
    ) -> None:
        """Find the clips and count their frames.

        Args:
            root: folder that is searched, with all below it, or one video file.
            clip_length: frames of a training clip, drawn at random; null gives whole clips in order, for tests.
            size: side of the ground-truth frames in pixels. A frame that is not square is first cut to its
                central square; then it is resized (area when shrinking, bicubic when enlarging) if it differs.
            interval: frame intervals to draw from, all equally likely; those too long for a clip are left out
                for that clip. The public stage II draws from 1 to 6.
            reverse: play a clip backwards with probability .5.
            flip: mirror a clip left to right with probability .5.
            tone_jitter: strengths (a, b) of a random tone curve x^γ, one a clip: log γ is the sum of a number
                uniform in [-a, a], common to the channels (brightness), and one in [-b, b] for each channel
                (tint). [0, 0] leaves tones alone. For small sets that show few of them.
            degradation: steps that make the low-quality clip, in order; empty gives ground truth alone.
            max_frames: use only the first so many frames of each clip; null is all.
        """
        if not interval:
            raise UserError("dataset: interval is empty; use [1] for neighbouring frames")
        if clip_length is None and (reverse or flip or any(tone_jitter) or tuple(interval) != (1,)):
            raise UserError(
                "dataset: interval, reverse, flip and tone_jitter need a clip_length; whole clips are read as they are"
            )
        self.root, self.clip_length, self.size, self.interval = (
            Path(root).expanduser(),
            clip_length,
            size,
            tuple(interval),
        )
        self.reverse, self.flip, self.tone_jitter, self.max_frames = reverse, flip, tone_jitter, max_frames
        self.pipeline = Pipeline(degradation) if degradation else None
        if not self.root.exists():
            raise UserError(f"{self.root}: no such folder or file")
        self.clips = self.find()
        if not self.clips:
            raise UserError(f"{self.root}: no clips found; {self.expects}")
        self._check_names()
        self._check_lengths()
        self._order: tuple[tuple[int, int], np.ndarray] | None = None

    expects = "expected clips"

    @abstractmethod
    def find(self) -> list[Clip]:
        """The clips under ``root``, sorted by name."""

    @abstractmethod
    def read(self, clip: Clip, start: int, count: int, step: int) -> np.ndarray:
        """Frames ``start, start + step, …`` of a clip as uint8 (count, H, W, 3) RGB."""

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        seed, position = key
        rng = np.random.default_rng([seed, position])
        clip = self.clips[self._clip_number(seed, position)]
        start, count, step, backwards, mirrored = self._cut(self._usable(clip), rng)
        frames = self.read(clip, start, count, step)
        if backwards:
            frames = frames[::-1]
        if mirrored:
            frames = frames[:, :, ::-1]
        gt = square_resize(frames, self.size)
        if any(self.tone_jitter):
            common, own = self.tone_jitter
            gt = tone_curves(gt, np.exp(rng.uniform(-common, common) + rng.uniform(-own, own, 3)))
        item: dict[str, Any] = {"gt": _to_tensor(gt)}
        drawn: list[dict[str, Any]] = []
        if self.pipeline:
            lq, drawn = self.pipeline(gt, rng)
            item["lq"] = _to_tensor(lq)
        return {**item, "name": clip.name, "degradation": json.dumps(drawn)}

    def _clip_number(self, seed: int, position: int) -> int:
        """Which clip stands at a position: its own number, or its place in this epoch's order."""
        if self.clip_length is None:
            return position
        epoch, place = divmod(position, len(self.clips))
        if self._order is None or self._order[0] != (seed, epoch):
            # The third number keeps this stream apart from that of position `epoch`.
            order = np.random.default_rng([seed, epoch, 1]).permutation(len(self.clips))
            self._order = ((seed, epoch), order)
        return int(self._order[1][place])

    def _cut(self, frames: int, rng: np.random.Generator) -> tuple[int, int, int, bool, bool]:
        """(start, count, step, backwards, mirrored) for a clip of ``frames`` frames."""
        if self.clip_length is None:
            return 0, frames, 1, False, False
        fitting = [n for n in self.interval if _span(self.clip_length, n) <= frames]
        step = fitting[int(rng.integers(len(fitting)))]
        start = int(rng.integers(frames - _span(self.clip_length, step), endpoint=True))
        backwards, mirrored = rng.random(2) < 0.5
        return start, self.clip_length, step, bool(self.reverse and backwards), bool(self.flip and mirrored)

    def _usable(self, clip: Clip) -> int:
        return clip.frames if self.max_frames is None else min(clip.frames, self.max_frames)

    def _check_lengths(self) -> None:
        if self.clip_length is None:
            return
        need = _span(self.clip_length, min(self.interval))
        short = [c for c in self.clips if self._usable(c) < need]
        if short:
            others = f" (and {len(short) - 1} more clips like it)" if len(short) > 1 else ""
            raise UserError(
                f"{self.root}: clip {short[0].name} has {self._usable(short[0])} frames, but clip_length "
                f"{self.clip_length} at interval {min(self.interval)} needs {need}{others}; remove it or shorten clips"
            )

    def _check_names(self) -> None:
        name, times = Counter(c.name for c in self.clips).most_common(1)[0]
        if times > 1:
            raise UserError(f"{self.root}: {times} clips are named {name}; results are kept by name: rename them")


@DATASETS.register()
class VideoClips(ClipDataset):
    """Clips that are video files, one a file."""

    expects = f"expected video files ({', '.join(sorted(VIDEO_SUFFIXES))}) in it or below it"

    def find(self) -> list[Clip]:
        if self.root.is_file():
            return [Clip(self.root.stem, probe(self.root).frames, self.root)]
        paths = [p for p in _files(self.root) if p.suffix.lower() in VIDEO_SUFFIXES]
        names = [p.relative_to(self.root).with_suffix("").as_posix() for p in paths]
        counted = tqdm(paths, desc=f"counting frames in {self.root}", unit=" clips", delay=2, leave=False)
        return [Clip(name, probe(p).frames, p) for name, p in zip(names, counted, strict=True)]

    def read(self, clip: Clip, start: int, count: int, step: int) -> np.ndarray:
        assert isinstance(clip.source, Path)
        return read_video(clip.source, start, count, step)


@DATASETS.register()
class FrameFolders(ClipDataset):
    """Clips that are folders of frame images, as VFHQ is laid out: ``root/clip/00000.png``.

    Every folder below ``root`` that holds images is a clip, its frames in the order of their numbers. Where
    ``root`` itself holds the images (FFHQ), each image is a clip of one frame.
    """

    expects = "expected folders of frame images, or images, in it"

    def find(self) -> list[Clip]:
        if self.root.is_file():
            raise UserError(f"{self.root}: is a file; FrameFolders needs a folder (VideoClips reads video files)")
        folders: dict[Path, list[Path]] = {}
        for path in _files(self.root):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                folders.setdefault(path.parent, []).append(path)
        flat = folders.pop(self.root, [])
        if flat and folders:
            raise UserError(f"{self.root}: holds images both directly and in folders; point root at one of the two")
        if flat:
            return [Clip(p.stem, 1, (p,)) for p in flat]
        return [Clip(f.relative_to(self.root).as_posix(), len(images), tuple(images)) for f, images in folders.items()]

    def read(self, clip: Clip, start: int, count: int, step: int) -> np.ndarray:
        assert isinstance(clip.source, tuple)
        return read_images(clip.source[start : start + (count - 1) * step + 1 : step])


def read_images(paths: Sequence[Path]) -> np.ndarray:
    """Images of one size as uint8 (T, H, W, 3) RGB.

    Raises:
        UserError: one cannot be read, or differs in size from the first.
    """
    frames: list[np.ndarray] = []
    for path in paths:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise UserError(f"{path}: not an image, or a damaged one")
        if frames and image.shape != frames[0].shape:
            raise UserError(f"{path}: is {_size(image)}, but {paths[0].name} of the same clip is {_size(frames[0])}")
        frames.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    return np.stack(frames)


def square_resize(frames: np.ndarray, size: int) -> np.ndarray:
    """uint8 (T, H, W, 3) → its central square, resized to (T, size, size, 3); area down, bicubic up."""
    height, width = frames.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    frames = np.ascontiguousarray(frames[:, top : top + side, left : left + side])
    if side == size:
        return frames
    how = cv2.INTER_AREA if size < side else cv2.INTER_CUBIC
    return np.stack([cv2.resize(frame, (size, size), interpolation=how) for frame in frames])


def tone_curves(frames: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    """uint8 (T, H, W, 3) → each channel c of x in [0, 1] to x^γ_c; ``gamma`` (3,)."""
    levels = np.linspace(0, 1, 256)[:, None] ** gamma
    table = np.rint(levels * 255).astype(np.uint8)
    return np.stack([table[:, c][frames[..., c]] for c in range(3)], axis=-1)


def _span(length: int, interval: int) -> int:
    """Source frames that a clip of ``length`` frames at ``interval`` reaches over."""
    return (length - 1) * interval + 1


def _files(root: Path) -> list[Path]:
    """Every file below ``root`` (links to folders followed), hidden ones left out, frame 2 before frame 10."""
    found: list[Path] = []
    for folder, folders, names in os.walk(root, followlinks=True):
        folders[:] = [f for f in folders if not f.startswith(".")]
        found += [Path(folder) / n for n in names if not n.startswith(".")]
    return sorted(found, key=lambda p: [int(s) if s.isdecimal() else s for s in re.split(r"(\d+)", p.as_posix())])


def _to_tensor(clip: np.ndarray) -> torch.Tensor:
    """(T, H, W, 3) → tensor (T, 3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(clip.transpose(0, 3, 1, 2)))


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
