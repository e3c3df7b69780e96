"""What the faces of a track look like, measured while they are found."""

from dataclasses import dataclass, field

import cv2
import numpy as np

from keep.faces.detect import Face

STEP = 5  # a measurement every so many frames
COLOURLESS = 3.0  # of 255: chroma below which a face has no colour


@dataclass
class Measures:
    """Measurements of one track.

    Attributes:
        chroma: of every fifth face, see :func:`chroma`.
    """

    seen: int = 0
    chroma: list[float] = field(default_factory=list)

    def add(self, image: np.ndarray, face: Face) -> None:
        """Measure the face of the next frame, uint8 (H, W, 3) RGB."""
        if self.seen % STEP == 0 and (part := cut(image, face.box)) is not None:
            self.chroma.append(chroma(part))
        self.seen += 1

    @property
    def gray(self) -> bool:
        """Whether the faces have no colour, up to coding noise."""
        return bool(self.chroma) and float(np.quantile(self.chroma, 0.9)) < COLOURLESS


def cut(image: np.ndarray, box: np.ndarray) -> np.ndarray | None:
    """The part of the frame that a box covers; None if that is nothing."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = (int(v) for v in np.clip(box, 0, (width, height, width, height)))
    return image[y0:y1, x0:x1] if x1 - x0 > 1 and y1 - y0 > 1 else None


def chroma(image: np.ndarray) -> float:
    """Distance from grey of the most colourful places of a face, in 0…128, averaged over an eighth of its side."""
    small = cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA)
    parts = cv2.cvtColor(small, cv2.COLOR_RGB2YCrCb)[..., 1:].astype(np.float32) - 128
    return float(np.quantile(np.hypot(parts[..., 0], parts[..., 1]), 0.9))
