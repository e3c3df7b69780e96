"""Finds the faces of consecutive frames: the whole of every n-th frame is searched, and between them known faces are
followed.

To search a small crop costs a fraction of a frame. So in the next frame only a crop around each known face is searched.
This is checked: where a face is not found again, the whole frame is searched. A face that appears between two full
searches is followed backwards from the second one. A detector places points in a crop a little differently than in the
frame; this difference is measured at every full search, and in between it is interpolated and taken off.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from keep.faces.angles import is_plausible, quarter_turns, turned_back
from keep.faces.detect import Detector, Face
from keep.faces.geometry import iou
from keep.utils.clock import Clock

MARGIN = 1.7  # side of a crop over the longer side of the face's box
OVERLAP = 0.3  # smallest intersection over union of a face's boxes in neighbouring frames
SHARE = 0.5  # crops of more than this part of the frame's pixels are not worth it


@dataclass
class Known:
    """A face, and what its detection in a crop is off, (7, 2), in units of its size."""

    face: Face
    offset: np.ndarray


@dataclass
class Seen:
    """A frame and its faces.

    Attributes:
        item: what the caller gave with the frame.
        image: uint8 (H, W, 3) RGB.
        cut: the frame starts a shot.
        known: the faces.
    """

    item: Any
    image: np.ndarray
    cut: bool
    known: list[Known]

    @property
    def faces(self) -> list[Face]:
        """The faces, the largest first."""
        return sorted((known.face for known in self.known), key=lambda face: -face.area)


def follow(frames: Iterable[tuple[Any, np.ndarray, bool]], detector: Any, every: int, clock: Clock) -> Iterator[Seen]:
    """The faces of all frames, in order. At most ``every`` frames are held.

    Args:
        frames: (anything, image, whether a shot starts here) of each frame.
        detector: frame → faces. In those without a ``crop_side``, every frame is searched.
        every: frames from one full search to the next.
        clock: measures ``detect``.
    """
    if every == 1 or not isinstance(detector, Detector) or detector.crop_side is None:
        for item, image, cut in frames:
            with clock("detect"):
                faces = detector(image)
            yield Seen(item, image, cut, [Known(face, np.zeros((7, 2))) for face in faces])
        return
    waiting: list[Seen] = []  # a frame that was searched, and those after it
    for item, image, cut in frames:
        if cut:
            with clock("detect"):
                search_last(waiting, detector)
            yield from waiting
            waiting = []
        seen = Seen(item, image, cut, [])
        with clock("detect"):
            again = find_again(waiting[-1].known, image, detector) if 0 < len(waiting) < every else None
            if again is None:
                search(seen, waiting[1:], detector)
            else:
                seen.known = again
        if again is None:
            yield from waiting
            waiting = []
        waiting.append(seen)
    with clock("detect"):
        search_last(waiting, detector)
    yield from waiting


def search(seen: Seen, before: list[Seen], detector: Detector) -> None:
    """Search the whole frame, and follow new faces backwards into the frames ``before`` it."""
    seen.known = []
    for face in detector(seen.image):
        known = Known(face, np.zeros((7, 2)))
        again = near(known, seen.image, detector)
        if again is not None:
            known.offset = (_values(face) - _values(again)) / _size(again)
        seen.known.append(known)
        follow_back(known, before, detector)


def follow_back(known: Known, before: list[Seen], detector: Detector) -> None:
    """Add a newly found face to the frames before; if it was followed to here, correct its places there."""
    if not before:
        return
    last = before[-1].known[: len(before[0].known)]
    followed = [i for i, other in enumerate(last) if iou(known.face.box, other.face.box) > OVERLAP]
    if followed:
        chain = [earlier.known[followed[0]] for earlier in before]  # followed faces keep their order
        for step, earlier in enumerate(chain, 1):
            earlier.face = moved(earlier.face, (known.offset - earlier.offset) * step / (len(chain) + 1))
        return
    for earlier in reversed(before):
        again = near(known, earlier.image, detector)
        if again is None or any(iou(again.box, other.face.box) > OVERLAP for other in earlier.known):
            return
        known = Known(again, known.offset)
        earlier.known.append(known)


def search_last(waiting: list[Seen], detector: Detector) -> None:
    """At the end of a shot: the last frame is searched, for faces that appeared after the last full search."""
    if len(waiting) > 1:
        search(waiting[-1], waiting[1:-1], detector)


def find_again(known: list[Known], image: np.ndarray, detector: Detector) -> list[Known] | None:
    """The faces of the frame before in this one; None if one is lost, or if they are too many for crops."""
    assert detector.crop_side is not None
    if len(known) * detector.crop_side**2 > SHARE * detector.scale(image) ** 2 * image.shape[0] * image.shape[1]:
        return None
    found: list[Known] = []
    for one in known:
        face = near(one, image, detector)
        if face is None or any(iou(face.box, other.face.box) > OVERLAP for other in found):
            return None
        found.append(Known(face, one.offset))
    return found


def near(known: Known, image: np.ndarray, detector: Detector) -> Face | None:
    """The face of this frame close to a known one, or None."""
    assert detector.crop_side is not None
    box = known.face.box
    side, centre = float((box[2:] - box[:2]).max()), (box[:2] + box[2:]) / 2
    scale = min(detector.scale(image), detector.crop_side / (MARGIN * side))
    corner, reach = np.floor(centre - detector.crop_side / scale / 2), detector.crop_side / scale
    (x0, y0), (x1, y1) = (np.maximum(at, 0).astype(int) for at in (corner, corner + reach))
    part = image[y0:y1, x0:x1]
    height, width = (round(scale * n) for n in part.shape[:2])
    if min(height, width) < 8:
        return None
    crop = np.zeros((detector.crop_side, detector.crop_side, 3), np.uint8)
    crop[:height, :width] = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
    turns = quarter_turns(known.face.points)
    rows = detector.rows(np.ascontiguousarray(np.rot90(crop, turns)))
    back = np.array([part.shape[1] / width, part.shape[0] / height])
    faces = []
    for row in rows:
        face = turned_back(Face(row[:4], row[4:14].reshape(5, 2), float(row[14])), turns, crop.shape)
        values = _values(face) * back + np.array([x0, y0])
        faces.append(Face(values[:2].ravel(), values[2:], face.score))
    best = max(faces, key=lambda face: iou(face.box, box), default=None)
    if best is None or iou(best.box, box) < OVERLAP or not is_plausible(best.points):
        return None
    return moved(best, known.offset)


def moved(face: Face, offset: np.ndarray) -> Face:
    """``face`` with box and points moved by ``offset`` (7, 2), in units of its size."""
    values = (_values(face) + offset * _size(face)).astype(np.float32)
    return Face(values[:2].ravel(), values[2:], face.score)


def _values(face: Face) -> np.ndarray:
    """Box and points as (7, 2)."""
    return np.concatenate([face.box.reshape(2, 2), face.points])


def _size(face: Face) -> float:
    return float(np.sqrt(max(face.area, 1.0)))
