"""Maps a frame to an upright crop of its face, and back."""

import math
from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np

from keep.utils.errors import UserError

TEMPLATE_512 = np.array(
    [
        [192.98138, 239.94708],
        [318.90277, 240.1936],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.15118],
    ]
)
"""The five points in a 512×512 crop with FFHQ's framing, (5, 2). The template of the public face restorers."""

GREY = (132, 133, 135)  # the public face restorers are trained with this colour beyond the frame (RGB)
BORDERS = {"constant": cv2.BORDER_CONSTANT, "replicate": cv2.BORDER_REPLICATE, "reflect": cv2.BORDER_REFLECT_101}


def similarity(
    points: np.ndarray,
    size: int = 512,
    template: np.ndarray | Sequence[Sequence[float]] | None = None,
    method: Literal["least_squares", "lmeds"] = "least_squares",
) -> np.ndarray:
    """The similarity (rotation, scale and shift) that maps ``points`` to the template.

    Least squares follows all points smoothly. ``"lmeds"`` (OpenCV's least median of squares, used by the public face
    restorers) ignores points that do not fit: the crop jumps when a point becomes an outlier.

    Args:
        points: (n, 2) in pixels of the frame.
        size: side of the crop; the template is scaled by size/512.
        template: (n, 2) in pixels of the crop, instead of :data:`TEMPLATE_512`; ``size`` is then unused.

    Returns:
        float64 (2, 3): crop = M @ (x, y, 1).

    Raises:
        UserError: a point is not finite, or all points coincide.
    """
    target = TEMPLATE_512 * size / 512 if template is None else np.asarray(template, np.float64)
    points = np.asarray(points, np.float64)
    if points.shape != target.shape or not np.isfinite(points).all():
        raise UserError(f"cannot align a face: its points must be {len(target)} finite (x, y), got {points.tolist()}")
    p, q = (a[:, 0] + 1j * a[:, 1] for a in (points, target))  # a similarity is z → a·z + b
    centred = p - p.mean()
    if not (np.abs(centred) ** 2).sum() > 1e-6:
        raise UserError(f"cannot align a face: all its points lie at {points[0].tolist()}")
    if method == "lmeds":
        matrix = cv2.estimateAffinePartial2D(points, target, method=cv2.LMEDS)[0]
        if matrix is not None:
            return matrix
    a = (centred.conj() * q).sum() / (np.abs(centred) ** 2).sum()
    b = q.mean() - a * p.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def crop(
    frame: np.ndarray,
    matrix: np.ndarray,
    size: int | tuple[int, int] = 512,
    border: Literal["constant", "replicate", "reflect"] = "constant",
) -> np.ndarray:
    """The part of the frame that ``matrix`` (2, 3) maps to a crop of ``size`` (side, or height and width).

    Bicubic. A face much larger than the crop is sampled more densely and averaged, to avoid aliasing.

    Args:
        frame: (H, W) or (H, W, C), uint8 or float32.
        border: content beyond the frame: grey, its edge pixels, or its mirror image.
    """
    height, width = (size, size) if isinstance(size, int) else size
    k = max(1, math.ceil(1 / scale_of(matrix) - 0.25))
    dense = k * np.asarray(matrix, np.float64)
    dense[:, 2] += (k - 1) / 2  # pixel centres are at integers
    value = GREY if frame.ndim == 3 and frame.shape[2] == 3 else (0, 0, 0)
    big = cv2.warpAffine(
        frame, dense, (k * width, k * height),
        flags=cv2.INTER_CUBIC, borderMode=BORDERS[border], borderValue=value,
    )  # fmt: skip
    return big if k == 1 else cv2.resize(big, (width, height), interpolation=cv2.INTER_AREA)


def scale_of(matrix: np.ndarray) -> float:
    """Crop pixels per frame pixel."""
    return math.sqrt(abs(float(np.linalg.det(np.asarray(matrix, np.float64)[:, :2]))))


def invert(matrix: np.ndarray) -> np.ndarray:
    """The inverse (2, 3) matrix, from the crop to the frame."""
    return cv2.invertAffineTransform(np.asarray(matrix, np.float64))


def transform(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (..., 2) mapped by a (2, 3) matrix."""
    return np.asarray(points) @ matrix[:, :2].T + matrix[:, 2]
