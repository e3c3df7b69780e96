"""Pass 1: finds shots, faces and landmarks of a video. Only a few numbers a frame are kept."""

from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from keep.data.mux import TimedFrame
from keep.faces.align import similarity
from keep.faces.follow import follow
from keep.faces.measure import GREY, Measures, ShotMeasures
from keep.faces.shots import ShotDetector
from keep.faces.smooth import fill_gaps, smooth
from keep.faces.track import Track, Tracker
from keep.utils.clock import Clock
from keep.utils.overlap import ahead


@dataclass(frozen=True)
class AlignedTrack:
    """One person in one shot: one Kalman recurrence in pass 2.

    Attributes:
        id: number of the track, in order of first appearance.
        shot: number of the shot, from 0.
        frames: int64 (n,), ascending frame numbers. Gaps up to the limit are filled; longer ones stay.
        points: float32 (n, 5, 2), smoothed by eq. (10), in pixels of the displayed frame (:func:`as_shown`); None if
            the frame itself is the aligned face.
        found: float32 (n, 5, 2), ``points`` before smoothing, with gaps filled.
        side: median of the shorter side of the boxes, in pixels.
        aspect: width of a pixel of the frame over its height.
        gray: the face has no colour.
        strength: how much of the restored face is wanted, 0 to 1 (:attr:`keep.faces.measure.Measures.strength`).
    """

    id: int
    shot: int
    frames: np.ndarray
    points: np.ndarray | None = None
    found: np.ndarray | None = None
    side: float = 0.0
    aspect: float = 1.0
    gray: bool = False
    strength: float = 1.0

    def matrix(self, i: int, size: int) -> np.ndarray:
        """(2, 3): maps frame ``frames[i]`` to its crop of ``size`` × ``size`` square pixels."""
        assert self.points is not None
        matrix = similarity(self.points[i], size)
        matrix[:, 2] += matrix[:, 0] * (self.aspect - 1) / 2  # pixel centres are at integers
        matrix[:, 0] *= self.aspect
        return matrix


@dataclass
class Scan:
    """What pass 1 found.

    Attributes:
        frames: number of decoded frames.
        shots: number of shots.
        tracks: the tracks to restore.
        small: number of tracks skipped because the face is too small.
        short: number of tracks skipped because they are too short.
        turned: number of detections skipped because their points are not those of an upright face.
    """

    frames: int
    shots: int
    tracks: list[AlignedTrack]
    small: int = 0
    short: int = 0
    turned: int = 0

    def choose(self, auto: bool) -> None:
        """With ``auto``, drop the tracks that are sharp already; else restore all in full strength."""
        if auto:
            self.tracks = [track for track in self.tracks if track.strength > 0]
        else:
            self.tracks = [replace(track, strength=1.0) for track in self.tracks]


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
    every: int = 8,
    report: Callable[[int], object] = lambda index: None,
    size: int = 128,
    waiting: int = 0,
) -> Scan:
    """Find, track and smooth the faces of a video in one pass. No frame is kept.

    Args:
        frames: all frames, in order.
        detector: frame → faces (:mod:`keep.faces.detect`).
        clock: measures ``shots``, ``detect`` and ``track``.
        identity: a network of :mod:`keep.faces.identity`, to distinguish people who cross or reappear.
        max_gap: longest run of frames without a detection that is interpolated.
        sigma: σ of eq. (10), in frames.
        radius: radius of eq. (10), in frames.
        min_face: smallest face that is restored: median of the box's shorter side, in pixels.
        min_frames: shortest track that is restored, unless the shot itself is shorter.
        every: frames from one search of the whole frame to the next; faces are followed in between.
        report: called with the number of each finished frame.
        size: side of the network's crops; sharpness is measured for it.
        waiting: frames that may wait for their faces to be found, while a thread finds shots; 0: no thread.
    """
    cuts, tracker, count = ShotDetector(), Tracker(identity=identity, patience=max(25, max_gap)), 0
    starts = [0]
    measures: defaultdict[int, Measures] = defaultdict(Measures)  # track → its faces
    pictures: defaultdict[int, ShotMeasures] = defaultdict(ShotMeasures)  # shot → its frames

    def with_cuts() -> Generator[tuple[TimedFrame, np.ndarray, bool], None, None]:
        for frame in frames:
            with clock("shots"):
                cut = cuts.update(frame.image)
            if cut:
                starts.append(frame.index)
            yield frame, frame.image, cut

    with closing(ahead(with_cuts(), waiting)) as compared:
        for seen in follow(compared, detector, every, clock):
            frame = seen.item
            if seen.cut:
                tracker.cut()
            with clock("track"):
                pictures[tracker.shot].add(frame.image)
                ids = tracker.update(frame.index, seen.faces, frame.image)
                for track, face in zip(ids, seen.faces, strict=True):
                    measures[track].add(frame.image, face, size)
            count += 1
            report(frame.index)
    result = Scan(count, len(starts), [])
    lengths = np.diff([*starts, count])
    for track in tracker.finish():
        aligned = replace(align(track, max_gap, sigma, radius), strength=measures[track.id].strength)
        if aligned.side < min_face:
            result.small += 1
        elif len(track) < min(min_frames, lengths[track.shot]):
            result.short += 1
        else:
            result.tracks.append(aligned)
    result.tracks = [replace(track, gray=is_gray(track, result.tracks, pictures, measures)) for track in result.tracks]
    return result


def is_gray(
    track: AlignedTrack,
    tracks: list[AlignedTrack],
    pictures: Mapping[int, ShotMeasures],
    measures: Mapping[int, Measures],
) -> bool:
    """Whether a track has no colour: its shot is black and white, or its faces have no trace of colour."""
    faces = [measures[other.id].usual_chroma for other in tracks if other.shot == track.shot]
    return pictures[track.shot].colourless(faces) or measures[track.id].usual_chroma < GREY


def integer_aspect(width: int, aspect: float) -> float:
    """The pixel aspect closest to ``aspect`` for which the displayed width is an integer; 1 for an implausible tag."""
    return round(width * aspect) / width if 0.25 <= aspect <= 4 and abs(aspect - 1) > 0.005 else 1.0


def as_shown(image: np.ndarray, aspect: float) -> np.ndarray:
    """``image`` resized to square pixels: faces are detected and aligned with their displayed proportions."""
    if aspect == 1:
        return image
    height, width = image.shape[:2]
    return cv2.resize(image, (round(width * aspect), height), interpolation=cv2.INTER_LINEAR)


def align(track: Track, max_gap: int, sigma: float, radius: int) -> AlignedTrack:
    """Fill gaps of up to ``max_gap`` frames and smooth the points. Frames of longer gaps are dropped."""
    frames, points, _ = track.timeline()
    found = fill_gaps(points, max_gap)
    smoothed = smooth(found, sigma, radius)
    known = np.isfinite(found).all(axis=(1, 2))
    side = float(np.median((track.boxes[:, 2:] - track.boxes[:, :2]).min(axis=1)))
    return AlignedTrack(track.id, track.shot, frames[known], smoothed[known], found[known], side)


def scan_aligned(
    frames: Iterable[TimedFrame], clock: Clock, report: Callable[[int], object] = lambda index: None
) -> Scan:
    """:func:`scan` for a video whose frames are aligned faces: one track a shot."""
    cuts, starts, count = ShotDetector(), [0], 0
    for frame in frames:
        with clock("shots"):
            if cuts.update(frame.image):
                starts.append(frame.index)
        count += 1
        report(frame.index)
    ends = [*starts[1:], count]
    tracks = [
        AlignedTrack(i, i, np.arange(start, end)) for i, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]
    return Scan(count, len(starts), tracks)
