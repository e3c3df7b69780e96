"""Converts a file's pictures to RGB and back, with its colour tags."""

from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation

from keep.data.decode import orientation, upright

# FFmpeg's numbers for colour tags (ITU-T H.273), and the YUV matrices that its converter supports.
UNSPECIFIED, BT709, SMPTE170M, RGB = 2, 1, 6, 0
FULL = 2  # full range
MATRICES = frozenset({1, 4, 5, 6, 7, 9})
# The converter's defaults are fast, but they darken pictures by about one level and tint full-range grey green.
EXACT = int(
    Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)


@dataclass(frozen=True)
class Colours:
    """FFmpeg's colour tags of a video: YUV matrix, primaries, transfer, range."""

    colorspace: int = UNSPECIFIED
    color_primaries: int = UNSPECIFIED
    color_trc: int = UNSPECIFIED
    color_range: int = 0


def to_rgb(frame: Any) -> np.ndarray:
    """Exact but slower than :func:`keep.data.decode.to_rgb`: pixels that are not restored must not change."""
    return upright(frame.reformat(format="rgb24", interpolation=EXACT).to_ndarray(), *orientation(frame))


def to_yuv(picture: Any, matrix: int, full: bool) -> Any:
    """RGB → 8-bit 4:2:0. FFmpeg truncates full-range chroma, which tints it green; so 16 bits are rounded here."""
    how = {"dst_colorspace": matrix, "interpolation": EXACT}
    if not full:
        return picture.reformat(format="yuv420p", dst_color_range=1, **how)
    deep = picture.reformat(format="yuv420p16le", dst_color_range=FULL, **how)
    planes = []
    for number, plane in enumerate(deep.planes):
        values = np.frombuffer(plane, "<u2").reshape(plane.height, -1)[:, : plane.width].astype(np.float32)
        zero = 128 if number else 0
        planes.append(((values - 256 * zero) / 257 + zero + 0.5).clip(0, 255).astype(np.uint8).ravel())
    return av.VideoFrame.from_ndarray(np.concatenate(planes).reshape(-1, deep.width), format="yuv420p")
