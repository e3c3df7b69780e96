"""Pass 1: shots, faces and their landmarks over the whole video, kept as a few numbers a frame."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from keep.data.mux import TimedFrame
from keep.faces.align import similarity
from keep.faces.shots import ShotDetector
from keep.faces.smooth import fill_gaps, smooth
from keep.faces.track import Track, Tracker
from keep.utils.clock import Clock


@dataclass(frozen=True)
class AlignedTrack:
    """One person in one shot, as pass 2 needs it: one Kalman recurrence.

    Attributes:
        id: its number, in order of first appearance.
        shot: number of the shot, from 0.
        frames: int64 (n,), rising: gaps up to the limit are closed, longer ones are left out.
        points: float32 (n, 5, 2), smoothed by eq. (10), in pixels of the frame as it is shown (:func:`as_shown`); None
            where the frame is the face.
        found: float32 (n, 5, 2), the same before smoothing, gaps filled.
        side: median of the shorter side of its boxes, in pixels.
        aspect: width of a pixel of the frame over its height.
    """

    id: int
    shot: int
    frames: np.ndarray
    points: np.ndarray | None = None
    found: np.ndarray | None = None
    side: float = 0.0
    aspect: float = 1.0

    def matrix(self, i: int, size: int) -> np.ndarray:
        """(2, 3), from the frame ``frames[i]`` to its crop of ``size`` pixels, whose pixels are square."""
        assert self.points is not None
        matrix = similarity(self.points[i], size)
        matrix[:, 2] += matrix[:, 0] * (self.aspect - 1) / 2  # pixel centres are at whole numbers
        matrix[:, 0] *= self.aspect
        return matrix


@dataclass
class Scan:
    """What pass 1 found.

    Attributes:
        frames: how many can be decoded.
        shots: how many there are.
        tracks: those to restore.
        small: tracks left out because the face is too small.
        short: tracks left out because they are too short.
    """

    frames: int
    shots: int
    tracks: list[AlignedTrack]
    small: int = 0
    short: int = 0


def scan(
    frames: Iterable[TimedFrame],
    detector: Callable[[np.ndarray], list[Any]],
    clock: Clock,
    identity: Any | None = None,
    max_gap: int = 10,
    sigma: float = 5,
    radius: int = 20,
    min_face: float = 24,
    min_frames: int = 5,
) -> Scan:
    """Find, track and smooth the faces of a video in one pass; no frame is kept.

    Args:
        frames: all of them, in order.
        detector: frame → faces (:mod:`keep.faces.detect`).
        clock: the seconds of ``shots``, ``detect`` and ``track``.
        identity: a network of :mod:`keep.faces.identity`, to tell people apart who cross or come back.
        max_gap: frames without a detection that are bridged by interpolation.
        sigma: of eq. (10), in frames.
        radius: of eq. (10), in frames.
        min_face: smallest face that is restored: median of the box's shorter side, in pixels.
        min_frames: shortest track that is restored, unless the whole shot is shorter.
    """
    cuts, tracker, count = ShotDetector(), Tracker(identity=identity, patience=max(25, max_gap)), 0
    starts = [0]
    for frame in frames:
        with clock("shots"):
            cut = cuts.update(frame.image)
        if cut:
            starts.append(frame.index)
            tracker.cut()
        with clock("detect"):
            faces = detector(frame.image)
        with clock("track"):
            tracker.update(frame.index, faces, frame.image)
        count += 1
    result = Scan(count, len(starts), [])
    lengths = np.diff([*starts, count])
    for track in tracker.finish():
        aligned = align(track, max_gap, sigma, radius)
        if aligned.side < min_face:
            result.small += 1
        elif len(track) < min(min_frames, lengths[track.shot]):
            result.short += 1
        else:
            result.tracks.append(aligned)
    return result


def whole_aspect(width: int, aspect: float) -> float:
    """The pixel aspect nearest to ``aspect`` that gives a whole number of pixels; 1 where the tag is no likely one."""
    return round(width * aspect) / width if 0.25 <= aspect <= 4 and abs(aspect - 1) > 0.005 else 1.0


def as_shown(image: np.ndarray, aspect: float) -> np.ndarray:
    """``image`` with square pixels: faces must be seen, and aligned, as people see them."""
    if aspect == 1:
        return image
    height, width = image.shape[:2]
    return cv2.resize(image, (round(width * aspect), height), interpolation=cv2.INTER_LINEAR)


def align(track: Track, max_gap: int, sigma: float, radius: int) -> AlignedTrack:
    """Gaps filled up to ``max_gap`` frames, points smoothed; what is still missing is left out."""
    frames, points, _ = track.timeline()
    found = fill_gaps(points, max_gap)
    smoothed = smooth(found, sigma, radius)
    there = np.isfinite(found).all(axis=(1, 2))
    side = float(np.median((track.boxes[:, 2:] - track.boxes[:, :2]).min(axis=1)))
    return AlignedTrack(track.id, track.shot, frames[there], smoothed[there], found[there], side)


def scan_aligned(frames: Iterable[TimedFrame], clock: Clock) -> Scan:
    """The same for a video whose frames are aligned faces: one track a shot."""
    cuts, starts, count = ShotDetector(), [0], 0
    for frame in frames:
        with clock("shots"):
            if cuts.update(frame.image):
                starts.append(frame.index)
        count += 1
    ends = [*starts[1:], count]
    tracks = [
        AlignedTrack(i, i, np.arange(start, end)) for i, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]
    return Scan(count, len(starts), tracks)
