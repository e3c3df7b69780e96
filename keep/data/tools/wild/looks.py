"""What a clip looks like: how sharp it is, and whether it shows one person."""

from typing import Any

import cv2
import numpy as np

LOOK_EVERY = 25  # frames between two looks
SAME = {"cosine": 0.3, "l2": 0.6}  # one person's views: at least this similar, or at most this far apart


class Looks:
    """What a few frames of a clip tell: how sharp it is, and whether it is one person throughout."""

    def __init__(self, identity: Any | None) -> None:
        self.identity = identity
        self._sharp: list[float] = []
        self._who: list[np.ndarray] = []

    def add(self, frame: np.ndarray, image: np.ndarray, points: np.ndarray) -> None:
        how = cv2.INTER_AREA if image.shape[0] > 256 else cv2.INTER_CUBIC
        grey = cv2.cvtColor(cv2.resize(image, (256, 256), interpolation=how), cv2.COLOR_RGB2GRAY)
        self._sharp.append(float(cv2.Laplacian(grey, cv2.CV_64F)[48:-32, 48:-48].var()))
        if self.identity is not None:
            self._who.append(self.identity(frame[None], points[None])[0])

    def sharpness(self) -> float:
        return float(np.median(self._sharp))

    def reason(self, min_sharpness: float) -> str | None:
        """Why the clip is not to be kept."""
        if self.sharpness() < min_sharpness:
            return "too blurred"
        if self.identity is not None and not one_person(np.stack(self._who), self.identity.measure):
            return "more than one person"
        return None


def one_person(who: np.ndarray, measure: str) -> bool:
    """Whether every vector (n, D) is near the median of all: one odd view (a hand before the face) is forgiven."""
    middle = np.median(who, axis=0)
    if measure == "cosine":
        near = who @ middle / np.linalg.norm(middle) >= SAME[measure]
    else:
        near = np.linalg.norm(who - middle, axis=1) <= SAME[measure]
    return int((~near).sum()) <= 1
