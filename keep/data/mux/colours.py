"""Converts a file's pictures to RGB and back, with its colour tags."""

from dataclasses import dataclass
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import Interpolation

from keep.data.decode import upright
from keep.data.mux.layout import Layout

# FFmpeg's numbers for colour tags (ITU-T H.273), and the YUV matrices that its converter supports.
UNSPECIFIED, BT709, SMPTE170M, RGB = 2, 1, 6, 0
LIMITED, FULL = 1, 2  # ranges
MATRICES = frozenset({1, 4, 5, 6, 7, 9})
# The converter's defaults are fast, but they darken pictures by about one level and tint full-range grey green.
EXACT = int(
    Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)
SMALL = 1920 * 1088  # pixels of a frame up to which one thread converts it: more take longer to start than they save
PLANAR = {"rgb24": "gbrp", "rgba": "gbrap", "rgb48le": "gbrp16le", "rgba64le": "gbrap16le"}
DEEP = {(1, 3): "rgb24", (1, 4): "rgba", (2, 3): "rgb48le", (2, 4): "rgba64le"}  # (bytes of a channel, channels)
WITH_ALPHA = frozenset({"bgra", "gbrap16le"})


@dataclass(frozen=True)
class Colours:
    """FFmpeg's colour tags of a video: YUV matrix, primaries, transfer, range."""

    colorspace: int = UNSPECIFIED
    color_primaries: int = UNSPECIFIED
    color_trc: int = UNSPECIFIED
    color_range: int = 0


def convert(frame: Any, form: str, **how: Any) -> Any:
    """A PyAV frame in another pixel format. Options as for its ``reformat``."""
    threads = 1 if frame.width * frame.height <= SMALL else 0
    return frame.reformat(format=form, threads=threads, **how)


def to_rgb(frame: Any, turn: tuple[int, bool]) -> np.ndarray:
    """Exact but slower than :func:`keep.data.decode.to_rgb`: pixels that are not restored must not change."""
    return upright(_pixels(frame, "rgb24"), *turn)


def to_deep(frame: Any, layout: Layout, turn: tuple[int, bool]) -> np.ndarray:
    """A decoded PyAV frame with all its bits: uint8 or uint16 (H, W, 3), or (H, W, 4) with alpha; upright."""
    form = DEEP[np.dtype(layout.dtype).itemsize, 4 if layout.alpha else 3]
    return upright(_pixels(frame, form), *turn)


def _pixels(frame: Any, form: str) -> np.ndarray:
    """A frame in one of the formats of ``PLANAR``: uint8 or uint16 (H, W, 3 or 4).

    FFmpeg converts YUV to planar RGB three times as fast as to interleaved RGB, with the same values.
    """
    if frame.format.is_rgb or frame.format.has_palette:
        return convert(frame, form, interpolation=EXACT).to_ndarray()
    planar = convert(frame, PLANAR[form], interpolation=EXACT)
    dtype = np.dtype("<u2" if "16" in planar.format.name else "u1")
    planes = [np.frombuffer(plane, dtype).reshape(plane.height, -1)[:, : plane.width] for plane in planar.planes]
    green, blue, red, *alpha = planes
    return cv2.merge([red, green, blue, *alpha])


def to_yuv(picture: Any, matrix: int, full: bool, form: str = "yuv420p") -> Any:
    """RGB → 4:2:0 of 8 or 10 bits.

    FFmpeg truncates full-range chroma, which tints it green; so 16 bits are rounded here.
    """
    how = {"dst_colorspace": matrix, "interpolation": EXACT}
    if not full:
        return convert(picture, form, dst_color_range=1, **how)
    deep = convert(picture, "yuv420p16le", dst_color_range=FULL, **how)
    most, kind = (255, np.uint8) if form == "yuv420p" else (1023, np.uint16)
    planes = []
    for number, plane in enumerate(deep.planes):
        values = np.frombuffer(plane, "<u2").reshape(plane.height, -1)[:, : plane.width].astype(np.float32)
        zero = (most + 1) // 2 if number else 0
        grey = 32768 if number else 0
        planes.append(((values - grey) * (most / 65535) + zero + 0.5).clip(0, most).astype(kind).ravel())
    return av.VideoFrame.from_ndarray(np.concatenate(planes).reshape(-1, deep.width), format=form)


def to_picture(image: np.ndarray, form: str, matrix: int, full: bool) -> Any:
    """uint8 or uint16 (H, W, 3 or 4) RGB, as stored → a PyAV frame of FFmpeg's pixel format ``form``.

    Args:
        matrix: of YUV.
        full: full range of YUV.
    """
    if form.startswith("gray"):
        plane = image[..., 0]
        deep = {"gray": 255, "gray10le": 1023, "gray16le": 65535}[form]
        plane = plane if deep == np.iinfo(plane.dtype).max else np.rint(plane * (deep / 65535)).astype(np.uint16)
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(plane), format=form)
    image = np.ascontiguousarray(image if form in WITH_ALPHA else image[..., :3])
    picture = av.VideoFrame.from_ndarray(image, format=DEEP[image.dtype.itemsize, image.shape[2]])
    return to_yuv(picture, matrix, full, form) if form.startswith("yuv") else convert(picture, form)
