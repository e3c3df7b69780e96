"""What a picture's pixels hold beyond 8-bit RGB, and how much of it an output keeps."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from keep.data.mux.hdr import TRANSFERS, Transfer

Codec = Literal["auto", "h264", "h265", "ffv1"]  # auto: see pick_codec


@dataclass(frozen=True)
class Layout:
    """What is stored of each pixel.

    Attributes:
        bits: bits of a channel.
        gray: black and white, without chroma.
        alpha: with transparency.
        transfer: the transfer function: ``pq`` and ``hlg`` are high dynamic range.
        full_chroma: chroma is stored for more than every fourth pixel.
    """

    bits: int = 8
    gray: bool = False
    alpha: bool = False
    transfer: Transfer = "sdr"
    full_chroma: bool = False

    @property
    def plain(self) -> bool:
        """Whether 8-bit RGB pictures hold everything."""
        return self.bits == 8 and not self.alpha and self.transfer == "sdr"

    @property
    def dtype(self) -> Any:
        """Of arrays that hold such pictures."""
        return np.uint8 if self.bits == 8 else np.uint16


PLAIN = Layout()


def layout_of(picture: Any) -> Layout:
    """Of a decoded PyAV frame."""
    form = picture.format
    parts = [c for c in form.components if not c.is_alpha]
    bits = max((c.bits for c in parts), default=8)
    gray = len(parts) == 1 and form.name.startswith(("gray", "ya", "mono"))
    small = form.chroma_width(16), form.chroma_height(16)
    transfer = TRANSFERS.get(picture.color_trc, "sdr") if bits > 8 else "sdr"
    alpha = any(c.is_alpha for c in form.components)
    return Layout(bits if bits > 8 else 8, gray, alpha, transfer, not gray and small != (8, 8))


def layout_of_image(image: np.ndarray) -> Layout:
    """Of an image file, as OpenCV reads it unchanged."""
    channels = 1 if image.ndim == 2 else image.shape[2]
    return Layout(16 if image.dtype == np.uint16 else 8, channels == 1, channels == 4, full_chroma=channels > 1)


def kept(layout: Layout, codec: Codec, frames: bool) -> Layout:
    """What the output has of ``layout``.

    Args:
        codec: not ``auto``.
        frames: the output is a folder of PNG files, which have no tags for a transfer function.
    """
    if frames:
        bits = 8 if layout.bits == 8 or layout.transfer != "sdr" else 16
        return replace(layout, bits=bits, transfer="sdr")
    if codec == "ffv1":
        bits = 8 if layout.bits == 8 else 16
        return replace(layout, bits=bits, gray=layout.gray and not layout.alpha)
    bits = 10 if layout.bits > 8 and codec == "h265" else 8
    transfer = layout.transfer if bits > 8 else "sdr"
    return Layout(bits, layout.gray, False, transfer, False)


def pick_codec(codec: Codec, layout: Layout) -> Codec:
    """The codec that ``auto`` stands for: H.265 for more than 8 bits, else H.264."""
    return codec if codec != "auto" else "h265" if layout.bits > 8 else "h264"


def pixel_format(codec: Codec, layout: Layout) -> str:
    """FFmpeg's pixel format of an output with this layout."""
    if layout.gray and codec != "h264":  # players show monochrome H.264 as 4:2:0 anyway, if they can
        return {8: "gray", 10: "gray10le", 16: "gray16le"}[layout.bits]
    if codec == "ffv1":
        formats = ("bgr0", "bgra") if layout.bits == 8 else ("gbrp16le", "gbrap16le")
        return formats[layout.alpha]
    return "yuv420p10le" if layout.bits > 8 else "yuv420p"
