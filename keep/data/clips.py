"""Datasets of clips: a clip is drawn, cut to a square, resized, and degraded, all from (seed, position)."""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import torch
from pydantic import Field
from torch.utils.data import Dataset
from tqdm import tqdm

from keep.config.registry import DATASETS, DEGRADATIONS
from keep.data.cache import LQCache, describe, digest
from keep.data.images import IMAGE_SUFFIXES, by_number, read_images, square_resize, tone_curves
from keep.data.index import Fingerprint, FolderIndex
from keep.data.stills import moving
from keep.data.video_io import VIDEO_SUFFIXES, Timeline, read_timeline, read_video
from keep.degradation.codec import encoder_version
from keep.degradation.pipeline import Pipeline
from keep.utils.errors import UserError

MOST_SKIPPED = 100  # clips in a row: then something else is wrong
T = TypeVar("T")


@dataclass(frozen=True)
class Clip:
    """One source clip.

    Attributes:
        name: unique in its dataset.
        frames: how many it has.
        source: what its dataset needs to read it.
        fingerprint: size and modification time of what holds it.
    """

    name: str
    frames: int
    source: Any
    fingerprint: Fingerprint = (0, 0)


@dataclass(frozen=True)
class Drawn:
    """A ground-truth clip as it was drawn.

    Attributes:
        gt: uint8 (T, size, size, 3) RGB.
        name: of the source clip.
        cut: which of its frames, as text.
        rng: the generator, from which the degradation draws next.
        skipped: a line for each clip that could not be read and was passed over.
    """

    gt: np.ndarray
    name: str
    cut: str
    rng: np.random.Generator
    skipped: tuple[str, ...] = ()


class ClipDataset(Dataset[dict[str, Any]], ABC):
    """Base of the datasets: they differ in how they find clips and read frames.

    ``dataset[seed, i]`` is a dict:

    - ``gt``: uint8 (T, 3, size, size) RGB;
    - ``lq``: uint8 (T, 3, h, w) RGB, the degraded clip; absent without ``degradation``;
    - ``name``: the clip's path below ``root``, without suffix;
    - ``degradation``: JSON of what was drawn, ``"[]"`` without ``degradation``;
    - ``skipped``, with ``on_bad: skip`` alone: a line for each bad clip that was passed over for this sample.

    All that is random in it is a function of (seed, i). While training (``clip_length`` set), i is the position
    in the whole run, without end: every ``len(dataset)`` positions visit each clip once, in a fresh order. With
    ``clip_length`` None, i is the clip's number and the clip is whole.

    Attributes:
        clips: the usable clips.
        bad: a line for each clip that was left out from the start (``on_bad: skip``).

    Raises:
        UserError: nothing found under ``root``; a bad clip; options that contradict each other.
    """

    def __init__(
        self,
        root: str,
        clip_length: Annotated[int, Field(ge=1)] | None = None,
        size: Annotated[int, Field(ge=1)] = 512,
        interval: tuple[Annotated[int, Field(ge=1)], ...] = (1,),
        reverse: bool = False,
        flip: bool = False,
        move_stills: bool = False,
        tone_jitter: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] = (0.0, 0.0),
        degradation: tuple[Annotated[Any, DEGRADATIONS], ...] = (),
        max_frames: Annotated[int, Field(ge=1)] | None = None,
        on_bad: Literal["stop", "skip"] = "stop",
        lq_cache: str | None = None,
        lq_cache_epochs: Annotated[int, Field(ge=1)] = 1,
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
            move_stills: make a training clip of a photograph, which is a clip of one frame, by moving it slowly
                as before a hand-held camera; without it such a clip is too short.
            tone_jitter: strengths (a, b) of a random tone curve x^γ, one a clip: log γ is the sum of a number
                uniform in [-a, a], common to the channels (brightness), and one in [-b, b] for each channel
                (tint). [0, 0] leaves tones alone. For small sets that show few of them.
            degradation: steps that make the low-quality clip, in order; empty gives ground truth alone.
            max_frames: use only the first so many frames of each clip; null is all.
            on_bad: what a clip that is damaged or too short does to a training run: stop it, or be skipped and
                counted. The next clip in the epoch's order then takes its place, so that sample i stays a function
                of (seed, i).
            lq_cache: folder in which the low-quality clips are kept: each is made once, then read. The training
                samples repeat after lq_cache_epochs. null makes every one afresh.
            lq_cache_epochs: how many epochs of different samples lq_cache holds.
        """
        if not interval:
            raise UserError("dataset: interval is empty; use [1] for neighbouring frames")
        if clip_length is None and (reverse or flip or move_stills or any(tone_jitter) or tuple(interval) != (1,)):
            raise UserError(
                "dataset: interval, reverse, flip, move_stills and tone_jitter need a clip_length; whole clips are "
                "read as they are"
            )
        if clip_length is None and on_bad == "skip":
            raise UserError("dataset: on_bad: skip needs a clip_length; a test that leaves out clips is another test")
        self.root, self.clip_length, self.size, self.interval = (
            Path(root).expanduser(),
            clip_length,
            size,
            tuple(interval),
        )
        self.reverse, self.flip, self.tone_jitter, self.max_frames = reverse, flip, tuple(tone_jitter), max_frames
        self.move_stills = move_stills
        self.on_bad, self.lq_cache_epochs = on_bad, lq_cache_epochs
        self.pipeline = Pipeline(degradation) if degradation else None
        if not self.root.exists():
            raise UserError(f"{self.root}: no such folder or file")
        self._bad: list[str] = []
        self.clips = self._long_enough(self.find())
        self.bad = tuple(self._bad)
        if not self.clips:
            reason = f"all {len(self.bad)} clips are bad; the first: {self.bad[0]}" if self.bad else "no clips found"
            raise UserError(f"{self.root}: {reason}; {self.expects}")
        self._check_names()
        self._order: tuple[tuple[int, int], np.ndarray] | None = None
        self.cache: LQCache | None = None
        if lq_cache is not None:
            if self.pipeline is None:
                raise UserError("dataset: lq_cache is of no use without degradation")
            self.cache = LQCache(lq_cache, self.about())

    expects = "expected clips"

    @abstractmethod
    def find(self) -> list[Clip]:
        """The clips under ``root``, in order. A clip that cannot be used goes to :meth:`reject` instead."""

    @abstractmethod
    def read(self, clip: Clip, start: int, count: int, step: int) -> np.ndarray:
        """Frames ``start, start + step, …`` of a clip as uint8 (count, H, W, 3) RGB."""

    def read_square(self, clip: Clip, start: int, count: int, step: int) -> np.ndarray:
        """The same frames as uint8 (count, size, size, 3)."""
        return square_resize(self.read(clip, start, count, step), self.size)

    def reject(self, reason: str) -> None:
        """Note a clip that cannot be used; with ``on_bad: stop``, raise its line as a UserError."""
        if self.on_bad == "stop":
            raise UserError(reason)
        self._bad.append(reason)

    def about(self) -> dict[str, Any]:
        """All that the low-quality clips depend on, but for the seed; plain JSON data."""
        options = (
            "clip_length", "size", "interval", "reverse", "flip", "move_stills", "tone_jitter", "max_frames", "on_bad",
            "lq_cache_epochs",
        )  # fmt: skip
        assert self.pipeline is not None
        return {
            "dataset": type(self).__name__,
            **{name: describe(getattr(self, name)) for name in options},
            "degradation": describe(self.pipeline.steps),
            "encoder": encoder_version(),
            "clips": digest([[c.name, c.frames, *c.fingerprint] for c in self.clips]),
        }

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        seed, position = key
        if self.cache is not None and self.clip_length is not None:
            position %= self.lq_cache_epochs * len(self.clips)
        drawn = self.ground_truth(seed, position)
        item: dict[str, Any] = {"gt": _to_tensor(drawn.gt)}
        record: list[dict[str, Any]] = []
        if self.pipeline is not None:
            record = self.pipeline.draw(drawn.rng)
            item["lq"] = _to_tensor(self._degraded(drawn, record, seed, position))
        item |= {"name": drawn.name, "degradation": json.dumps(record)}
        return item if self.on_bad == "stop" else {**item, "skipped": "\n".join(drawn.skipped)}

    def ground_truth(self, seed: int, position: int) -> Drawn:
        """The sample without its low-quality side: drawn, read, cut, mirrored, its tones changed."""
        skipped: list[str] = []
        for attempt in range(min(len(self.clips), MOST_SKIPPED)):
            clip = self.clips[self._clip_number(seed, position, attempt)]
            # Later attempts draw from streams of their own: the fourth number keeps them apart from the others.
            rng = np.random.default_rng([seed, position, attempt, 1] if attempt else [seed, position])
            try:
                return self._drawn(clip, rng, skipped)
            except UserError as error:
                if self.on_bad == "stop":
                    raise
                skipped.append(str(error))
        raise UserError(f"{self.root}: {len(skipped)} clips one after the other are bad; the first: {skipped[0]}")

    def _drawn(self, clip: Clip, rng: np.random.Generator, skipped: Sequence[str]) -> Drawn:
        start, count, step, backwards, mirrored = self._cut(self._usable(clip), rng)
        if self._is_still(clip):
            frames = moving(self.read_square(clip, 0, 1, 1)[0], rng, count, step)
        else:
            frames = self.read_square(clip, start, count, step)
        if backwards:
            frames = frames[::-1]
        if mirrored:
            frames = frames[:, :, ::-1]
        if any(self.tone_jitter):
            common, own = self.tone_jitter
            frames = tone_curves(frames, np.exp(rng.uniform(-common, common) + rng.uniform(-own, own, 3)))
        cut = f"{start}:{step}{' backwards' * backwards}{' mirrored' * mirrored}"
        return Drawn(np.ascontiguousarray(frames), clip.name, cut, rng, tuple(skipped))

    def _degraded(self, drawn: Drawn, record: list[dict[str, Any]], seed: int, position: int) -> np.ndarray:
        assert self.pipeline is not None
        if self.cache is None:
            return self.pipeline.replay(drawn.gt, record)
        self.cache.open(seed)
        path = self.cache.path(position, f"{drawn.name} {drawn.cut} {json.dumps(record)}")
        lq = self.cache.get(path, len(drawn.gt))
        if lq is None:
            lq = self.pipeline.replay(drawn.gt, record)
            self.cache.put(path, lq)
        return lq

    def _clip_number(self, seed: int, position: int, attempt: int = 0) -> int:
        """Which clip stands at a position: its own number, or its place in this epoch's order."""
        if self.clip_length is None:
            return position
        epoch, place = divmod(position, len(self.clips))
        if self._order is None or self._order[0] != (seed, epoch):
            # The third number keeps this stream apart from that of position `epoch`.
            order = np.random.default_rng([seed, epoch, 1]).permutation(len(self.clips))
            self._order = ((seed, epoch), order)
        return int(self._order[1][(place + attempt) % len(self.clips)])

    def _cut(self, frames: int, rng: np.random.Generator) -> tuple[int, int, int, bool, bool]:
        """(start, count, step, backwards, mirrored) for a clip of ``frames`` frames."""
        if self.clip_length is None:
            return 0, frames, 1, False, False
        fitting = [n for n in self.interval if _span(self.clip_length, n) <= frames] or self.interval  # a still
        step = fitting[int(rng.integers(len(fitting)))]
        start = int(rng.integers(max(0, frames - _span(self.clip_length, step)), endpoint=True))
        backwards, mirrored = rng.random(2) < 0.5
        return start, self.clip_length, step, bool(self.reverse and backwards), bool(self.flip and mirrored)

    def _is_still(self, clip: Clip) -> bool:
        """Whether a training clip of it is made by moving its one frame."""
        return self.move_stills and clip.frames == 1 and self.clip_length != 1

    def _usable(self, clip: Clip) -> int:
        return clip.frames if self.max_frames is None else min(clip.frames, self.max_frames)

    def _long_enough(self, clips: list[Clip]) -> list[Clip]:
        if self.clip_length is None:
            return clips
        need = _span(self.clip_length, min(self.interval))
        enough = [self._usable(c) >= need or self._is_still(c) for c in clips]
        short = [c for c, fits in zip(clips, enough, strict=True) if not fits]
        if short and self.on_bad == "stop":
            others = f" (and {len(short) - 1} more clips like it)" if len(short) > 1 else ""
            raise UserError(
                f"{self.root}: clip {short[0].name} has {self._usable(short[0])} frames, but clip_length "
                f"{self.clip_length} at interval {min(self.interval)} needs {need}{others}; remove it or shorten clips"
            )
        for clip in short:
            self.reject(f"{self.root}: clip {clip.name}: too short: {self._usable(clip)} frames of {need}")
        return [c for c, fits in zip(clips, enough, strict=True) if fits]

    def _check_names(self) -> None:
        name, times = Counter(c.name for c in self.clips).most_common(1)[0]
        if times > 1:
            raise UserError(f"{self.root}: {times} clips are named {name}; results are kept by name: rename them")


_damaged_stay = False


@contextmanager
def damaged_clips_stay() -> Iterator[None]:
    """Within, datasets of whole clips that are made keep a damaged video in its place, without frames.

    To read it is the UserError that would have been raised at once: so a test tells of it and goes on.
    """
    global _damaged_stay
    before, _damaged_stay = _damaged_stay, True
    try:
        yield
    finally:
        _damaged_stay = before


@DATASETS.register()
class VideoClips(ClipDataset):
    """Clips that are video files, one a file."""

    expects = f"expected video files ({', '.join(sorted(VIDEO_SUFFIXES))}) in it or below it"

    def find(self) -> list[Clip]:
        if self.root.is_file():
            timeline = read_timeline(self.root)
            stat = self.root.stat()
            return [Clip(self.root.stem, timeline.info.frames, timeline, (stat.st_size, stat.st_mtime_ns))]
        index = FolderIndex(self.root, "videos")
        paths = [folder / name for folder, names, _ in index.walk(VIDEO_SUFFIXES, names=True) for name in names]
        clips = []
        for path in counted(sorted(paths, key=lambda p: by_number(p.as_posix())), self.root):
            try:
                data, mark = index.value(path, lambda path=path: read_timeline(path).dump())
            except UserError as error:
                if _damaged_stay and self.clip_length is None:
                    stat = path.stat()
                    name = path.relative_to(self.root).with_suffix("").as_posix()
                    clips.append(Clip(name, 0, error, (stat.st_size, stat.st_mtime_ns)))
                else:
                    self.reject(str(error))
                continue
            timeline = Timeline.load(data)
            # The suffix travels in front of the timeline: a clip's name is its path without it.
            source = (path.suffix, timeline)
            name = path.relative_to(self.root).with_suffix("").as_posix()
            clips.append(Clip(name, timeline.info.frames, source, mark))
        index.save()
        return clips

    def read(self, clip: Clip, start: int, count: int, step: int) -> np.ndarray:
        path, timeline = self.where(clip)
        return read_video(path, start, count, step, timeline)

    def where(self, clip: Clip) -> tuple[Path, Timeline]:
        """A clip's file and timeline."""
        if isinstance(clip.source, UserError):
            raise UserError(str(clip.source))
        if isinstance(clip.source, Timeline):
            return self.root, clip.source
        suffix, timeline = clip.source
        return self.root / f"{clip.name}{suffix}", timeline


@DATASETS.register()
class FrameFolders(ClipDataset):
    """Clips that are folders of frame images: ``root/clip/00000.png``.

    Every folder below ``root`` that holds images is a clip, its frames in the order of their numbers. Where
    ``root`` itself holds the images, each image is a clip of one frame.
    """

    expects = "expected folders of frame images, or images, in it"

    def find(self) -> list[Clip]:
        if self.root.is_file():
            raise UserError(f"{self.root}: is a file; {type(self).__name__} needs a folder (VideoClips reads videos)")
        index = FolderIndex(self.root, "frames")
        found = [f for f in counted(index.walk(IMAGE_SUFFIXES, names=False), self.root) if f[1]]
        index.save()
        if found and found[0][0] == self.root:
            if len(found) > 1:
                raise UserError(
                    f"{self.root}: holds images both directly and in folders; point root at one of the two, "
                    "or use ImageFolder for single images"
                )
            return single_images(self.root)
        found.sort(key=lambda f: by_number(f[0].as_posix()))
        return [Clip(folder.relative_to(self.root).as_posix(), n, None, mark) for folder, n, mark in found]

    def read(self, clip: Clip, start: int, count: int, step: int) -> np.ndarray:
        return read_images(self.paths(clip)[start : start + (count - 1) * step + 1 : step])

    def paths(self, clip: Clip) -> list[Path]:
        """A clip's images in order.

        Raises:
            UserError: they are not as many as were counted.
        """
        if clip.source is not None:
            return [self.root / clip.source]
        folder = self.root / clip.name
        try:
            names = [p.name for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != "."]
        except OSError as error:
            raise UserError(f"{folder}: cannot be read: {error.strerror}") from None
        if len(names) != clip.frames:
            raise UserError(f"{folder}: holds {len(names)} images, but {clip.frames} were expected")
        return [folder / name for name in sorted(names, key=by_number)]


@DATASETS.register()
class ImageFolder(FrameFolders):
    """Images, each a clip of one frame, at ``root`` or anywhere below it, as FFHQ is laid out; for stage I."""

    expects = "expected images in it or below it"

    def find(self) -> list[Clip]:
        if self.root.is_file():
            raise UserError(f"{self.root}: is a file; ImageFolder needs a folder")
        return single_images(self.root)


def single_images(root: Path) -> list[Clip]:
    """Every image at ``root`` or below it as a clip of one frame."""
    index = FolderIndex(root, "images")
    listed = list(counted(index.walk(IMAGE_SUFFIXES, names=True), root))
    index.save()
    files = [((folder / name).relative_to(root), mark) for folder, names, mark in listed for name in names]
    files.sort(key=lambda f: by_number(f[0].as_posix()))
    return [Clip(path.with_suffix("").as_posix(), 1, path.as_posix(), mark) for path, mark in files]


def counted(items: Iterable[T], root: Path) -> Iterable[T]:
    """``items`` with a progress bar, should they take long."""
    return tqdm(items, desc=f"looking through {root}", unit=" clips", delay=2, leave=False)


def _span(length: int, interval: int) -> int:
    """Source frames that a clip of ``length`` frames at ``interval`` reaches over."""
    return (length - 1) * interval + 1


def _to_tensor(clip: np.ndarray) -> torch.Tensor:
    """(T, H, W, 3) → tensor (T, 3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(clip.transpose(0, 3, 1, 2)))
