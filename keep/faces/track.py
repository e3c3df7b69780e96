"""Joins faces over time into tracks of one person in one shot."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from keep.faces.detect import Face
from keep.faces.geometry import iou
from keep.utils.errors import UserError

REFRESH = 25  # frames between updates of a track's identity


@dataclass
class Track:
    """One face over time, within one shot.

    Attributes:
        id: number of the track, in order of first appearance.
        shot: number of the shot, from 0.
        frames: int64 (n,), ascending: the frames with a detection; there may be gaps.
        points: float32 (n, 5, 2).
        boxes: float32 (n, 4).
        scores: float32 (n,).
    """

    id: int
    shot: int
    frames: np.ndarray
    points: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)

    def timeline(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(frames (T,), points (T, 5, 2), boxes (T, 4)) of every frame from first to last; NaN without a detection."""
        frames = np.arange(self.frames[0], self.frames[-1] + 1)
        at = self.frames - self.frames[0]
        points, boxes = np.full((len(frames), 5, 2), np.nan, np.float32), np.full((len(frames), 4), np.nan, np.float32)
        points[at], boxes[at] = self.points, self.boxes
        return frames, points, boxes


@dataclass
class _Open:
    """A track that is not closed yet."""

    id: int
    frames: list[int] = field(default_factory=list)
    faces: list[Face] = field(default_factory=list)
    identity: np.ndarray | None = None
    refreshed: int = -REFRESH
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2, np.float32))  # of the centre, px per frame

    def add(self, t: int, face: Face) -> None:
        if self.frames:
            steps = t - self.frames[-1]
            moved = (_centre(face.box) - _centre(self.faces[-1].box)) / steps
            self.velocity = moved if len(self.frames) == 1 else 0.5 * self.velocity + 0.5 * moved
        self.frames.append(t)
        self.faces.append(face)

    def expected(self, t: int) -> np.ndarray:
        """The box at frame t if the motion continues, for at most 10 frames: after that, the position is unknown."""
        return self.faces[-1].box + np.tile(self.velocity, 2) * min(t - self.frames[-1], 10)


class Tracker:
    """Joins detections into tracks: the best assignment by overlap with the expected box of each track.

    A lost face continues its track if it reappears at the expected position within ``patience`` frames. An identity
    network distinguishes faces that overlap (people who cross), requires a face that reappears to be the same person,
    and recognises a face that reappears elsewhere.

    Args:
        min_iou: smallest overlap (intersection over union) of a face with its track's expected box.
        patience: frames that a track may be lost before it is closed.
        identity: a network of :mod:`keep.faces.identity`; without one, only the position counts.
        same: smallest cosine similarity, or largest L2 distance, between two views of one person; None: 0.3 for a
            cosine network, 0.6 for an L2 network.
    """

    def __init__(
        self, min_iou: float = 0.2, patience: int = 25, identity: Any | None = None, same: float | None = None
    ) -> None:
        self.min_iou, self.patience, self.identity = min_iou, patience, identity
        self.same = same if same is not None or identity is None else {"cosine": 0.3, "l2": 0.6}[identity.measure]
        self.shot = 0
        self._next, self._last = 0, -1
        self._open: list[_Open] = []
        self._closed: list[Track] = []

    def cut(self) -> None:
        """Start a new shot: close all tracks."""
        self._close(self._open)
        self._open = []
        self.shot += 1

    def update(self, t: int, faces: list[Face], frame: np.ndarray | None = None) -> list[int]:
        """Add the faces of frame ``t``, which must follow all earlier frames; returns the ids of their tracks.

        Args:
            frame: uint8 (H, W, 3) RGB; needed with an identity network.
        """
        if t <= self._last:
            raise UserError(f"frame {t} came after frame {self._last}: a tracker needs frames in order")
        if self.identity is not None and frame is None and faces:
            raise UserError("a tracker with an identity network needs the images of the frames")
        self._last = t
        ended = [track for track in self._open if t - track.frames[-1] > self.patience]
        self._close(ended)
        self._open = [track for track in self._open if track not in ended]

        identities = _Identities(self, faces, frame)
        found: list[_Open | None] = [None] * len(faces)
        for row, column in self._pairs(t, faces, identities):
            track = self._open[row]
            lost = t - track.frames[-1] > 1
            if not (lost and identities.differs(track, column)):
                found[column] = track
        for column in range(len(faces)):
            if found[column] is None:
                free = [track for track in self._open if track not in found and t > track.frames[-1]]
                found[column] = identities.most_similar(free, column) or self._begin()
        for column, track in enumerate(found):
            assert track is not None
            alone = all(j == column or iou(faces[column].box, other.box) < 0.1 for j, other in enumerate(faces))
            if t - track.refreshed >= REFRESH and alone:
                identities.remember(track, column, t)
            track.add(t, faces[column])
        return [track.id for track in found if track is not None]

    def finish(self) -> list[Track]:
        """Close all tracks and return them, in order of first appearance."""
        self._close(self._open)
        self._open = []
        return sorted(self._closed, key=lambda track: track.id)

    def _begin(self) -> _Open:
        track = _Open(self._next)
        self._next += 1
        self._open.append(track)
        return track

    def _pairs(self, t: int, faces: list[Face], identities: "_Identities") -> list[tuple[int, int]]:
        """Pairs (open track, face) of the best assignment."""
        if not faces or not self._open:
            return []
        overlap = np.array([[iou(track.expected(t), face.box) for face in faces] for track in self._open])
        possible = overlap >= self.min_iou
        value = overlap.copy()
        unclear = (possible.sum(0, keepdims=True) > 1) | (possible.sum(1, keepdims=True) > 1)
        for row, column in np.argwhere(possible & unclear):
            value[row, column] += identities.bonus(self._open[row], column)
        # An impossible pair costs more than two unassigned members.
        pairs = assign(np.where(possible, -value, 10.0))
        return [(row, column) for row, column in pairs if possible[row, column]]

    def _close(self, tracks: list[_Open]) -> None:
        for track in tracks:
            self._closed.append(
                Track(
                    track.id,
                    self.shot,
                    np.array(track.frames, np.int64),
                    np.stack([f.points for f in track.faces]).astype(np.float32),
                    np.stack([f.box for f in track.faces]).astype(np.float32),
                    np.array([f.score for f in track.faces], np.float32),
                )
            )


class _Identities:
    """The identities of one frame's faces, computed on first use."""

    def __init__(self, tracker: Tracker, faces: list[Face], frame: np.ndarray | None) -> None:
        self.tracker, self.faces, self.frame = tracker, faces, frame
        self._vectors: dict[int, np.ndarray] = {}

    def of(self, column: int) -> np.ndarray | None:
        if self.tracker.identity is None or self.frame is None:
            return None
        if column not in self._vectors:
            self._vectors[column] = self.tracker.identity(self.frame[None], self.faces[column].points[None])[0]
        return self._vectors[column]

    def remember(self, track: _Open, column: int, t: int) -> None:
        vector = self.of(column)
        if vector is not None:
            track.identity = vector if track.identity is None else 0.8 * track.identity + 0.2 * vector
            track.refreshed = t

    def margin(self, track: _Open, column: int) -> float:
        """Distance from the threshold: above 0 for the same person, NaN if unknown."""
        vector = self.of(column) if track.identity is not None else None
        if vector is None or track.identity is None or self.tracker.same is None:
            return np.nan
        if self.tracker.identity.measure == "l2":  # pyright: ignore[reportOptionalMemberAccess]
            return self.tracker.same - float(np.linalg.norm(vector - track.identity))
        length = float(np.linalg.norm(vector) * np.linalg.norm(track.identity))
        return float(vector @ track.identity) / max(length, 1e-12) - self.tracker.same

    def bonus(self, track: _Open, column: int) -> float:
        """Bonus added to an overlap in 0…1 if several pairs are possible: identity outweighs position."""
        margin = self.margin(track, column)
        return 0.0 if np.isnan(margin) else 2 * margin

    def differs(self, track: _Open, column: int) -> bool:
        return self.margin(track, column) < 0

    def most_similar(self, tracks: list[_Open], column: int) -> _Open | None:
        """The lost track of the same person, if any."""
        margins = {track.id: self.margin(track, column) for track in tracks}
        same = [track for track in tracks if margins[track.id] > 0]
        return max(same, key=lambda track: margins[track.id]) if same else None


def assign(cost: np.ndarray) -> list[tuple[int, int]]:
    """The min(rows, columns) pairs (row, column) of the assignment with the lowest total cost.

    The Hungarian method by shortest augmenting paths, O(n³): exact, and fast for the few faces of a frame.
    """
    cost = np.asarray(cost, np.float64)
    if cost.shape[0] > cost.shape[1]:
        return sorted((row, column) for column, row in assign(cost.T))
    rows, columns = cost.shape
    row_price, column_price = np.zeros(rows + 1), np.zeros(columns + 1)
    owner = np.zeros(columns + 1, np.int64)  # the row assigned to each column; 0: none; column 0 is the root
    for row in range(1, rows + 1):
        owner[0], column = row, 0
        least, before = np.full(columns + 1, np.inf), np.zeros(columns + 1, np.int64)
        visited = np.zeros(columns + 1, bool)
        while owner[column]:
            visited[column] = True
            r = owner[column]
            reduced = np.append(0, cost[r - 1]) - row_price[r] - column_price
            better = ~visited & (reduced < least)
            least[better], before[better] = reduced[better], column
            following = int(np.where(visited, np.inf, least).argmin())
            step = least[following]
            row_price[owner[visited]] += step
            column_price[visited] -= step
            least[~visited] -= step
            column = following
        while column:
            owner[column] = owner[before[column]]
            column = int(before[column])
    return sorted((int(owner[c]) - 1, c - 1) for c in range(1, columns + 1) if owner[c])


def interpolated(tracks: list[Track], interval: int) -> list[Track]:
    """Tracks of faces detected every ``interval`` frames, interpolated linearly in between."""
    return [_interpolate(track, interval) for track in tracks]


def _interpolate(track: Track, interval: int) -> Track:
    if interval == 1 or len(track) < 2:
        return track
    frames = [np.arange(a, b) if b - a <= interval else np.array([a]) for a, b in pairwise(track.frames)]
    at = np.concatenate([*frames, track.frames[-1:]])

    def between(values: np.ndarray) -> np.ndarray:
        flat = values.reshape(len(values), -1)
        columns = [np.interp(at, track.frames, flat[:, c]) for c in range(flat.shape[1])]
        return np.stack(columns, 1).reshape(len(at), *values.shape[1:]).astype(np.float32)

    return Track(track.id, track.shot, at, between(track.points), between(track.boxes), between(track.scores))


def _centre(box: np.ndarray) -> np.ndarray:
    return (box[:2] + box[2:]) / 2
