"""What shots and the faces of tracks look like, measured while they are found."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from keep.faces.align import crop, scale_of, similarity
from keep.faces.detect import Face

STEP = 5  # a measurement every so many frames
COLOURLESS = 3.0  # of 128: chroma below which a shot and its faces have no colour; coding noise is less
GREY = 1.0  # of 128: the same for a face in a coloured shot, where it is grey only as a picture within the picture
# Sharpness up to which a restored face is taken as it is, and from which the input is. Measured with the weights
# nano: faces of seven people, crops of 72, 112 and 176 px, blurred and compressed in nine ways. Restoring changes
# PSNR to the clean face by +0.9 dB below 0.03 (median), -1.2 at 0.04 to 0.05, -2.9 at 0.05 to 0.06, -7.6 from 0.08.
# With lite, faces of three people: -0.5 dB below 0.04, -1.0 up to 0.055, -3.0 up to 0.07, -4.7 up to 0.085, -6.4 above.
SOFT, SHARP = 0.055, 0.085
LEAST = 128  # px: smallest crop in which sharpness is measured


@dataclass
class Measures:
    """Measurements of one track.

    Attributes:
        chroma: of every fifth face, see :func:`chroma`.
        sharpness: of every fifth face, see :func:`sharpness`.
    """

    seen: int = 0
    chroma: list[float] = field(default_factory=list)
    sharpness: list[float] = field(default_factory=list)

    def add(self, image: np.ndarray, face: Face, size: int) -> None:
        """Measure the face of the next frame, uint8 (H, W, 3) RGB; the network's crops have ``size`` pixels."""
        if self.seen % STEP == 0 and (part := cut(image, face.box)) is not None:
            self.chroma.append(chroma(part))
            side = measured_side(face.points, size)
            self.sharpness.append(sharpness(crop(image, similarity(face.points, side), side)))
        self.seen += 1

    @property
    def strength(self) -> float:
        """How much of the restored face is wanted, from 0 (the input is as sharp as it gets) to 1."""
        if not self.sharpness:
            return 1.0
        return float(np.clip((SHARP - np.median(self.sharpness)) / (SHARP - SOFT), 0, 1))

    @property
    def usual_chroma(self) -> float:
        """Chroma that one face in ten exceeds."""
        return upper(self.chroma)


@dataclass
class ShotMeasures:
    """Measurements of one shot.

    Attributes:
        chroma: of every fifth frame, see :func:`chroma`.
    """

    seen: int = 0
    chroma: list[float] = field(default_factory=list)

    def add(self, image: np.ndarray) -> None:
        """Measure the next frame, uint8 (H, W, 3) RGB."""
        if self.seen % STEP == 0:
            self.chroma.append(chroma(image))
        self.seen += 1

    def colourless(self, faces: Sequence[float]) -> bool:
        """Whether the shot is black and white: neither its frames nor any of its ``faces`` (chroma) has colour.

        A face counts beside the frame, because it may be its only coloured part.
        """
        return max([upper(self.chroma), *faces]) < COLOURLESS


def measured_side(points: np.ndarray, size: int) -> int:
    """Side of the crop in which sharpness is measured, for a network of ``size`` pixels.

    A face larger than the network loses its finer detail anyway; of a smaller one, the output shows no finer detail
    than the frame has pixels. Below 128 pixels the limits were measured in crops of 128.
    """
    shown = size / scale_of(similarity(points, size))
    return round(max(LEAST, min(size, shown)))


def upper(values: Sequence[float]) -> float:
    """The value that one in ten exceeds; infinite without values."""
    return float(np.quantile(values, 0.9)) if values else np.inf


def cut(image: np.ndarray, box: np.ndarray) -> np.ndarray | None:
    """The part of the frame that a box covers; None if that is nothing."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = (int(v) for v in np.clip(box, 0, (width, height, width, height)))
    return image[y0:y1, x0:x1] if x1 - x0 > 1 and y1 - y0 > 1 else None


def sharpness(face: np.ndarray) -> float:
    """Share of the finest detail in the contrast of a crop (S, S, 3): what blur, enlarging and codecs take away."""
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(np.float32)
    detail = cv2.GaussianBlur(grey, (0, 0), 0.8) - cv2.GaussianBlur(grey, (0, 0), 1.6)
    return float(detail.std() / max(float(grey.std()), 4.0))


def chroma(image: np.ndarray) -> float:
    """Distance from grey of the most colourful places of a picture, in 0…128, averaged over an eighth of its side."""
    small = cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA)
    parts = cv2.cvtColor(small, cv2.COLOR_RGB2YCrCb)[..., 1:].astype(np.float32) - 128
    return float(np.quantile(np.hypot(parts[..., 0], parts[..., 1]), 0.9))
