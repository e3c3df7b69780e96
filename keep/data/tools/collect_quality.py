"""Quality of a clip: its sharpness, and whether it shows one person only."""

from typing import Any

import cv2
import numpy as np

SAMPLE_EVERY = 25
"""Distance in frames between the measured ones."""
SAME_PERSON = {"cosine": 0.3, "l2": 0.6}
"""Measure of the identity network → smallest similarity, or largest distance, between views of one person."""


class ClipQuality:
    """Measurements on some frames of a clip.

    Args:
        identity: identity network, or None to skip that check.
    """

    def __init__(self, identity: Any | None) -> None:
        self.identity = identity
        self._sharpness: list[float] = []
        self._identities: list[np.ndarray] = []

    def add(self, frame: np.ndarray, aligned: np.ndarray, points: np.ndarray) -> None:
        """Measure a frame, uint8 (H, W, 3), with its aligned crop and its five points (5, 2)."""
        how = cv2.INTER_AREA if aligned.shape[0] > 256 else cv2.INTER_CUBIC
        grey = cv2.cvtColor(cv2.resize(aligned, (256, 256), interpolation=how), cv2.COLOR_RGB2GRAY)
        self._sharpness.append(float(cv2.Laplacian(grey, cv2.CV_64F)[48:-32, 48:-48].var()))
        if self.identity is not None:
            self._identities.append(self.identity(frame[None], points[None])[0])

    def sharpness(self) -> float:
        """Median variance of the Laplacian of the face at 256×256."""
        return float(np.median(self._sharpness))

    def fault(self, min_sharpness: float) -> str | None:
        """Why the clip is rejected; None if it is kept."""
        if self.sharpness() < min_sharpness:
            return "too blurred"
        if self.identity is not None and not is_one_person(np.stack(self._identities), self.identity.measure):
            return "more than one person"
        return None


def is_one_person(identities: np.ndarray, measure: str) -> bool:
    """Whether all vectors (n, D) but at most one are near their median: one bad view (a hand, say) is allowed."""
    middle = np.median(identities, axis=0)
    if measure == "cosine":
        near = identities @ middle / np.linalg.norm(middle) >= SAME_PERSON[measure]
    else:
        near = np.linalg.norm(identities - middle, axis=1) <= SAME_PERSON[measure]
    return int((~near).sum()) <= 1
