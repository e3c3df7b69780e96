"""Base of the clip datasets: draw a clip, read it, crop it square, resize and degrade it, all from (seed, position)."""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch.utils.data import Dataset

from keep.config.registry import DEGRADATIONS
from keep.data.cache import LQCache, describe, digest
from keep.data.checks import WrongFrames, check_frames, check_list
from keep.data.images import square_resize, tone_curves
from keep.data.region import Region
from keep.data.stills import moving
from keep.degradation.codec import encoder_version
from keep.degradation.pipeline import Pipeline
from keep.utils.clock import Clock
from keep.utils.errors import UserError
from keep.utils.paths import expand
from keep.utils.ranges import Batch, Count, Side

Jitter = Annotated[float, Field(ge=0, le=5)]
MOST_SKIPPED = 100  # bad clips in a row: then something else is wrong


@dataclass(frozen=True)
class SourceClip:
    """One source clip.

    Attributes:
        name: unique in its dataset.
        frames: number of frames.
        source: what its dataset needs to read it.
    """

    name: str
    frames: int
    source: Any


@dataclass(frozen=True)
class GroundTruth:
    """The ground truth of one sample.

    Attributes:
        gt: uint8 (T, size, size, 3) RGB.
        name: of the source clip.
        cut: which of its frames, as text.
        rng: the generator; the degradation draws from it next.
        skipped: one line for each unreadable clip that was skipped.
        region: what is degraded and then aligned; None: the ground truth itself is degraded.
    """

    gt: np.ndarray
    name: str
    cut: str
    rng: np.random.Generator
    skipped: tuple[str, ...] = ()
    region: Region | None = None


class ClipDataset(Dataset[dict[str, Any]], ABC):
    """Base of the datasets: they differ in how they find clips and read frames.

    ``dataset[seed, i]`` is a dict:

    - ``gt``: uint8 (T, 3, size, size) RGB;
    - ``lq``: uint8 (T, 3, h, w) RGB, the degraded clip; absent without ``degradation``;
    - ``name``: the clip's path below ``root``, without suffix;
    - ``degradation``: JSON of the drawn parameters, ``"[]"`` without ``degradation``;
    - ``skipped``, only with ``on_bad: skip``: one line for each bad clip that was skipped for this sample.

    Everything random in it is a function of (seed, i). In training (``clip_length`` set), i counts samples from the
    start of training and may grow without limit; each epoch (``len(dataset)`` positions) visits every clip once, in a
    new order. With ``clip_length`` None, i is the number of the clip and the sample is the whole clip.

    Attributes:
        clips: the usable clips.
        bad: one line for each clip that was skipped from the start (``on_bad: skip``).

    Raises:
        UserError: nothing found under ``root``; a bad clip; options that contradict each other.
    """

    def __init__(
        self,
        root: str,
        clip_length: Batch | None = None,
        size: Side = 512,
        interval: tuple[Batch, ...] = (1,),
        reverse: bool = False,
        flip: bool = False,
        move_stills: bool = False,
        tone_jitter: tuple[Jitter, Jitter] = (0.0, 0.0),
        degradation: tuple[Annotated[Any, DEGRADATIONS], ...] = (),
        max_frames: Count | None = None,
        on_bad: Literal["stop", "skip", "keep"] = "stop",
        lq_cache: str | None = None,
        lq_cache_epochs: Count = 1,
    ) -> None:
        """Find the clips and count their frames.

        Args:
            root: folder that is searched with its subfolders, or one video file.
            clip_length: frames of a training clip, drawn at random; null gives whole clips in order, for tests.
            size: side of the ground-truth frames in pixels. A frame that is not square is first cut to its
                central square, then resized if needed (area to shrink, bicubic to enlarge).
            interval: frame intervals to draw from, all equally likely; those too long for a clip are not drawn
                for it. The public stage II draws from 1 to 6.
            reverse: play a clip backwards with probability .5.
            flip: mirror a clip left to right with probability .5.
            move_stills: make a training clip from a photograph, which is a clip of one frame, by slow camera
                motion; without it such a clip is too short.
            tone_jitter: strengths (a, b) of a random tone curve x^γ, one per clip: log γ is the sum of a number
                uniform in [-a, a], common to the channels (brightness), and one in [-b, b] for each channel
                (tint). [0, 0] keeps the tones. For small sets that show few of them.
            degradation: steps that make the low-quality clip, in order; empty gives ground truth alone.
            max_frames: use only the first so many frames of each clip; null uses all.
            on_bad: what to do with a clip that is damaged or too short. stop: raise an error. skip (training
                clips only): skip and count it; the next clip in the epoch's order takes its place, so that sample
                i stays a function of (seed, i). keep (whole clips only): a damaged video stays in the list, and
                reading it raises the error; keep-test uses this to report it and continue.
            lq_cache: folder for the low-quality clips: each is made once, then read. The training samples repeat
                after lq_cache_epochs. null makes each one anew.
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
            raise UserError("dataset: on_bad: skip needs a clip_length; a test without some clips is another test")
        if clip_length is not None and on_bad == "keep":
            raise UserError("dataset: on_bad: keep is for whole clips (no clip_length); use skip")
        self.root = expand(root)
        self.clip_length, self.size, self.max_frames = clip_length, size, max_frames
        self.interval, self.tone_jitter = tuple(interval), tuple(tone_jitter)
        self.reverse, self.flip, self.move_stills = reverse, flip, move_stills
        self.on_bad, self.lq_cache_epochs = on_bad, lq_cache_epochs
        self.pipeline = Pipeline(degradation, size) if degradation else None
        if not self.root.exists():
            raise UserError(f"{self.root}: no such folder or file")
        self._bad: list[str] = []
        found = self.find()
        check_list(found, SourceClip, f"{type(self).__name__}.find")
        self.clips = self._long_enough(found)
        self.bad = tuple(self._bad)
        if not self.clips:
            reason = f"all {len(self.bad)} clips are bad; the first: {self.bad[0]}" if self.bad else "no clips found"
            raise UserError(f"{self.root}: {reason}; {self.expects}")
        self._check_names()
        self._order: tuple[tuple[int, int], np.ndarray] | None = None
        self.cache: LQCache | None = None
        if lq_cache is not None:
            if self.pipeline is None:
                raise UserError("dataset: lq_cache needs a degradation")
            self.cache = LQCache(lq_cache, self.about())

    keeps_index = True
    """Whether the index of the folder is kept for the next start (:mod:`keep.data.index`)."""
    expects = "expected clips"
    """What ``root`` should hold, for the error when it holds no clips."""

    # --- what a dataset defines -------------------------------------------------------------------------------

    @abstractmethod
    def find(self) -> list[SourceClip]:
        """The clips under ``root``, in order; unusable clips go to :meth:`reject`."""

    @abstractmethod
    def read(self, clip: SourceClip, start: int, count: int, step: int) -> np.ndarray:
        """Frames ``start, start + step, …`` of a clip as uint8 (count, H, W, 3) RGB."""

    def read_square(self, clip: SourceClip, start: int, count: int, step: int) -> np.ndarray:
        """The same frames as uint8 (count, size, size, 3)."""
        frames = self.read(clip, start, count, step)
        check_frames(frames, (count, None, None, 3), f"{type(self).__name__}.read of clip {clip.name}")
        return square_resize(frames, self.size)

    def read_pair(self, clip: SourceClip, start: int, count: int, step: int) -> tuple[np.ndarray, Region | None]:
        """:meth:`read_square`, and the region of the source that is degraded in place of these frames, if any."""
        return self.read_square(clip, start, count, step), None

    def files(self, clip: SourceClip) -> list[Path] | None:
        """Every file that the frames of a clip depend on, in order; ``keep.test`` scores a clip again when one changes.

        None: unknown, as for a dataset that does not override this; ``keep.test`` then compares the frames.
        """
        return None

    def reject(self, reason: str) -> None:
        """Skip an unusable clip with ``on_bad: skip``; otherwise raise ``reason`` as a UserError."""
        if self.on_bad != "skip":
            raise UserError(reason)
        self._bad.append(reason)

    def about(self) -> dict[str, Any]:
        """Everything that the low-quality clips depend on, except the seed; plain JSON data."""
        options = (
            "clip_length", "size", "interval", "reverse", "flip", "move_stills", "tone_jitter", "max_frames",
            "lq_cache_epochs",
        )  # fmt: skip
        assert self.pipeline is not None
        return {
            "dataset": type(self).__name__,
            **{name: describe(getattr(self, name)) for name in options},
            "on_bad": "skip" if self.on_bad == "skip" else "stop",  # keep makes the same clips as stop
            "degradation": describe(self.pipeline.steps),
            "encoder": encoder_version(),
            "clips": self.digest(),
        }

    def digest(self) -> str:
        """A short hash of the names and lengths of the clips: equal digests give the same order of training samples."""
        return digest([[c.name, c.frames] for c in self.clips])

    # --- samples ----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        return self.sample(*key)

    def sample(self, seed: int, position: int, clock: Clock | None = None) -> dict[str, Any]:
        """``dataset[seed, position]``; ``clock`` adds up the time of its parts ``decode`` and ``degrade``."""
        clock = clock or Clock()
        if self.cache is not None and self.clip_length is not None:
            position %= self.lq_cache_epochs * len(self.clips)
        with clock("decode"):
            truth = self.ground_truth(seed, position)
        item: dict[str, Any] = {"gt": to_tensor(truth.gt)}
        record: list[dict[str, Any]] = []
        if self.pipeline is not None:
            with clock("degrade"):
                record = self.pipeline.draw(truth.rng)
                item["lq"] = to_tensor(self._degraded(truth, record, seed, position))
        item |= {"name": truth.name, "degradation": json.dumps(record)}
        return {**item, "skipped": "\n".join(truth.skipped)} if self.on_bad == "skip" else item

    def locate_sample(self, seed: int, position: int) -> tuple["ClipDataset", int, int]:
        """The dataset of a sample, with the sample's seed and position in it: of :class:`Mixed` one of several."""
        return self, seed, position

    def ground_truth(self, seed: int, position: int) -> GroundTruth:
        """The sample without its low-quality side: drawn, read, cut, mirrored, its tones changed."""
        skipped: list[str] = []
        for attempt in range(min(len(self.clips), MOST_SKIPPED)):
            clip = self.clips[self._clip_number(seed, position, attempt)]
            # Each attempt has its own random stream: the fourth number separates it from all others.
            rng = np.random.default_rng([seed, position, attempt, 1] if attempt else [seed, position])
            try:
                return self._ground_truth_of(clip, rng, skipped)
            except UserError as error:
                if self.on_bad != "skip" or isinstance(error, WrongFrames):
                    raise
                skipped.append(str(error))
        raise UserError(f"{self.root}: {len(skipped)} clips in a row are bad; the first: {skipped[0]}")

    def _ground_truth_of(self, clip: SourceClip, rng: np.random.Generator, skipped: Sequence[str]) -> GroundTruth:
        start, count, step, backwards, mirrored = self._draw_cut(self._usable(clip), rng)
        region = None
        if self._is_still(clip):
            frames = moving(self.read_square(clip, 0, 1, 1)[0], rng, count, step)
        else:
            frames, region = self.read_pair(clip, start, count, step)
            shape = count, self.size, self.size, 3
            check_frames(frames, shape, f"{type(self).__name__}.read_square of clip {clip.name}")
        if region is not None:
            region = region.played(backwards, mirrored)
        if backwards:
            frames = frames[::-1]
        if mirrored:
            frames = frames[:, :, ::-1]
        if any(self.tone_jitter):
            common, single = self.tone_jitter
            gamma = np.exp(rng.uniform(-common, common) + rng.uniform(-single, single, 3))
            frames = tone_curves(frames, gamma)
            region = None if region is None else region.toned(gamma)
        cut = f"{start}:{step}{' backwards' * backwards}{' mirrored' * mirrored}"
        return GroundTruth(np.ascontiguousarray(frames), clip.name, cut, rng, tuple(skipped), region)

    def degrade(
        self, truth: GroundTruth, record: Sequence[dict[str, Any]], clock: dict[str, float] | None = None
    ) -> np.ndarray:
        """The low-quality clip uint8 (T, h, w, 3) for drawn parameters; ``clock`` as in :meth:`Pipeline.replay`."""
        assert self.pipeline is not None
        if truth.region is None:
            return self.pipeline.replay(truth.gt, record, clock)
        return truth.region.align(self.pipeline.replay(truth.region.frames, record, clock))

    def _degraded(self, truth: GroundTruth, record: list[dict[str, Any]], seed: int, position: int) -> np.ndarray:
        if self.cache is None:
            return self.degrade(truth, record)
        self.cache.open(seed)
        source = truth.gt if truth.region is None else truth.region.frames
        path = self.cache.path(position, f"{truth.name} {truth.cut} {json.dumps(record)}", source)
        lq = self.cache.get(path, len(truth.gt))
        if lq is None:
            lq = self.degrade(truth, record)
            self.cache.put(path, lq)
        return lq

    def clip_at(self, seed: int, position: int) -> SourceClip:
        """The clip of ``dataset[seed, position]``; the next one if that is bad and ``on_bad`` is ``skip``."""
        return self.clips[self._clip_number(seed, position)]

    def _clip_number(self, seed: int, position: int, attempt: int = 0) -> int:
        """The clip at a position: its own number, or its place in this epoch's order."""
        if self.clip_length is None:
            return position
        epoch, place = divmod(position, len(self.clips))
        if self._order is None or self._order[0] != (seed, epoch):
            # The third number separates this stream from that of position `epoch`.
            order = np.random.default_rng([seed, epoch, 1]).permutation(len(self.clips))
            self._order = ((seed, epoch), order)
        return int(self._order[1][(place + attempt) % len(self.clips)])

    def _draw_cut(self, frames: int, rng: np.random.Generator) -> tuple[int, int, int, bool, bool]:
        """(start, count, step, backwards, mirrored) for a clip of ``frames`` frames."""
        if self.clip_length is None:
            return 0, frames, 1, False, False
        fitting = [n for n in self.interval if _span(self.clip_length, n) <= frames] or self.interval  # a still
        step = fitting[int(rng.integers(len(fitting)))]
        start = int(rng.integers(max(0, frames - _span(self.clip_length, step)), endpoint=True))
        backwards, mirrored = rng.random(2) < 0.5
        return start, self.clip_length, step, bool(self.reverse and backwards), bool(self.flip and mirrored)

    # --- which clips are usable -------------------------------------------------------------------------------

    def _is_still(self, clip: SourceClip) -> bool:
        """Whether a training clip is made from its single frame."""
        return self.move_stills and clip.frames == 1 and self.clip_length != 1

    def _usable(self, clip: SourceClip) -> int:
        """Number of frames that may be used."""
        return clip.frames if self.max_frames is None else min(clip.frames, self.max_frames)

    def _long_enough(self, clips: list[SourceClip]) -> list[SourceClip]:
        if self.clip_length is None:
            return clips
        need = _span(self.clip_length, min(self.interval))
        enough = [self._usable(c) >= need or self._is_still(c) for c in clips]
        short = [c for c, fits in zip(clips, enough, strict=True) if not fits]
        if short and self.on_bad == "stop":
            others = f" (and {len(short) - 1} more clips like it)" if len(short) > 1 else ""
            raise UserError(
                f"{self.root}: clip {short[0].name} has {self._usable(short[0])} frames, but clip_length "
                f"{self.clip_length} at interval {min(self.interval)} needs {need}{others}; remove it or reduce "
                "clip_length"
            )
        for clip in short:
            self.reject(f"{self.root}: clip {clip.name}: too short: {self._usable(clip)} frames of {need}")
        return [c for c, fits in zip(clips, enough, strict=True) if fits]

    def _check_names(self) -> None:
        name, times = Counter(c.name for c in self.clips).most_common(1)[0]
        if times > 1:
            raise UserError(f"{self.root}: {times} clips are named {name}; results are kept by name: rename them")


def to_tensor(clip: np.ndarray) -> torch.Tensor:
    """(T, H, W, 3) → tensor (T, 3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(clip.transpose(0, 3, 1, 2)))


def _span(length: int, interval: int) -> int:
    """Source frames that a clip of ``length`` frames at ``interval`` covers."""
    return (length - 1) * interval + 1
