"""Pastes a restored face back into its frame."""

import math
from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np

from keep.faces.align import invert, scale_of, transform

ERODE, FEATHER = 0.03, 0.09  # fractions of the crop's side
# The ellipse of an aligned face, from forehead to chin and ear to ear, in fractions of the crop's side. The ramp is
# centred on its outline.
CENTRE, AXES, RAMP = (0.5, 0.56), (0.31, 0.38), 0.3


def paste(
    frame: np.ndarray,
    face: np.ndarray,
    mask: np.ndarray,
    matrix: np.ndarray,
    convert: Callable[[np.ndarray], np.ndarray] | None = None,
) -> None:
    """Blend ``face`` into ``frame``, in place, through the inverse of ``matrix``: mask · face + (1 − mask) · frame.

    Only the part of the frame that the mask covers changes. A face that is smaller in the frame than in the crop is
    averaged down first, to avoid aliasing; a larger one is enlarged bicubically.

    Args:
        frame: uint8 (H, W, 3); with ``convert`` also uint16.
        face: uint8 (S, S, 3).
        mask: float32 (S, S), 0 to 1.
        matrix: (2, 3), frame → crop, from :func:`keep.faces.align.similarity`.
        convert: uint8 pixels of the face → pixels of the frame, such as HDR.
    """
    size = face.shape[0]
    if (shrink := scale_of(matrix)) > 1.5:
        small = max(2, round(size / shrink))
        face, mask = (cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA) for image in (face, mask))
        matrix, size = zoomed(matrix, small / size), small
    low, high = -0.5, size - 0.5  # the crop's outer edge: pixel centres are at integers
    corners = transform(invert(matrix), np.array([[low, low], [high, low], [high, high], [low, high]]))
    x0, y0 = (max(0, math.floor(v)) for v in corners.min(0))
    x1, y1 = (min(n, math.ceil(v) + 1) for v, n in zip(corners.max(0), frame.shape[1::-1], strict=True))
    if x0 >= x1 or y0 >= y1:
        return
    flags = cv2.WARP_INVERSE_MAP
    at = {"M": _seen_from(matrix, x0, y0), "dsize": (x1 - x0, y1 - y0)}
    mask = cv2.warpAffine(mask, flags=flags | cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, **at)
    x, y, w, h = cv2.boundingRect((mask > 0).astype(np.uint8))
    if not w:
        return
    mask, region = mask[y : y + h, x : x + w], frame[y0 + y : y0 + y + h, x0 + x : x0 + x + w]
    at = {"M": _seen_from(matrix, x0 + x, y0 + y), "dsize": (w, h)}
    face = cv2.warpAffine(face, flags=flags | cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE, **at)
    if convert is None:
        mask = np.ascontiguousarray(mask)
        region[:] = cv2.blendLinear(face, np.ascontiguousarray(region), mask, 1 - mask)
    else:
        region[:] = convert(face) * mask[..., None] + region * (1 - mask[..., None]) + 0.5


def _seen_from(matrix: np.ndarray, x: int, y: int) -> np.ndarray:
    """``matrix`` for the part of the frame that begins at (x, y)."""
    result = np.array(matrix, np.float64)
    result[:, 2] = transform(result, np.array([x, y]))
    return result


def feathered_mask(size: int, erode: float = ERODE, feather: float = FEATHER) -> np.ndarray:
    """A square with soft edges: 1 inside, 0 at the crop's border, a smooth ramp in between; float32 (S, S).

    Args:
        size: side of the crop S.
        erode: width of the zero margin, as a fraction of the side.
        feather: width of the ramp, as a fraction of the side.
    """
    position = (np.arange(size) + 0.5) / size
    inward = np.minimum(position, 1 - position)
    ramp = _smoothstep((inward - erode) / feather)
    return np.outer(ramp, ramp).astype(np.float32)


@lru_cache(maxsize=4)
def face_mask(size: int) -> np.ndarray:
    """The mask without a parser: the ellipse of an aligned face, with a wide soft edge.

    The edge lies on skin, so changes of colour leave no visible border, and most of the hair and the background stay
    as in the input. The mask is 0 at the crop's border. It is shared between calls and read-only.

    Args:
        size: side of the crop S.

    Returns:
        float32 (S, S).
    """
    position = (np.arange(size) + 0.5) / size
    x, y = ((position - centre) / axis for centre, axis in zip(CENTRE, AXES, strict=True))
    distance = np.hypot(x[None], y[:, None])  # 1 on the outline
    mask = (_smoothstep((1 + RAMP / 2 - distance) / RAMP) * feathered_mask(size)).astype(np.float32)
    mask.flags.writeable = False
    return mask


def _smoothstep(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def match_colour(face: np.ndarray, like: np.ndarray) -> np.ndarray:
    """``face`` with the coarse colours of ``like``: restored detail, with skin tone and light of the input.

    The low frequencies of ``face``, below a Gaussian of σ = S/16, are replaced by those of ``like``.

    Args:
        face: uint8 (S, S, 3).
        like: uint8 (S, S, 3), the same crop of the input.
    """
    size = face.shape[0]
    small = max(8, size // 8)  # low frequencies need few pixels

    def coarse(image: np.ndarray) -> np.ndarray:
        image = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA).astype(np.float32)
        image = cv2.GaussianBlur(image, (0, 0), small / 16, borderType=cv2.BORDER_REPLICATE)
        return image

    change = cv2.resize(coarse(like) - coarse(face), (size, size), interpolation=cv2.INTER_LINEAR)
    return np.clip(face + change + 0.5, 0, 255).astype(np.uint8)


def zoomed(matrix: np.ndarray, factor: float) -> np.ndarray:
    """The matrix to a crop with ``factor`` times as many pixels per side; pixel centres are at integers."""
    result = np.asarray(matrix, np.float64) * factor
    result[:, 2] += (factor - 1) / 2
    return result


def from_zoomed(matrix: np.ndarray, factor: float) -> np.ndarray:
    """The matrix from a frame with ``factor`` times as many pixels per side to the same crop."""
    result = np.array(matrix, np.float64)
    result[:, :2] /= factor
    result[:, 2] += result[:, :2].sum(1) * (1 - factor) / 2
    return result
