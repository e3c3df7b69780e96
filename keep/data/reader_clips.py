"""Kinds of video, and small clips of each to compare two readers on."""

import io
from dataclasses import dataclass
from typing import Any

import av
import av.error
import numpy as np

from keep.data.decode import VideoFile, decode

FRAMES, KEY_EVERY = 7, 4
FULL = 2  # FFmpeg's number for the full range
ENCODERS = ("libx264", "ffv1")


@dataclass(frozen=True)
class Kind:
    """What the conversion of a decoded frame to RGB depends on.

    Attributes:
        pix_fmt: FFmpeg's name of the pixel format.
        colour_range: FFmpeg's number: 0 not stated, 1 limited, 2 full.
        matrix: FFmpeg's number of the matrix between YUV and RGB: 1 BT.709, 2 not stated, 6 BT.601, …
    """

    pix_fmt: str
    colour_range: int
    matrix: int

    def __str__(self) -> str:
        return f"{self.pix_fmt}, {'full' if self.colour_range == FULL else 'limited'} range, matrix {self.matrix}"


def kind_of_frame(frame: Any) -> Kind:
    """The kind of a decoded PyAV frame."""
    return Kind(frame.format.name, int(frame.color_range), int(frame.colorspace))


def check_clip(kind: Kind, width: int, height: int) -> bytes | None:
    """A clip of random pixels of this kind, as the bytes of a Matroska file; None if no encoder makes it."""
    for codec in ENCODERS:
        try:
            content = _encoded(kind, width, height, codec)
            frames = list(decode(VideoFile("check", content)))
        except (av.error.FFmpegError, ValueError):
            continue
        if len(frames) == FRAMES and all(kind_of_frame(frame) == kind for frame in frames):
            return content
    return None


def _encoded(kind: Kind, width: int, height: int, codec: str) -> bytes:
    rng = np.random.default_rng(0)
    file = io.BytesIO()
    options = {"g": str(KEY_EVERY)} | ({"crf": "10", "bf": "2"} if codec == "libx264" else {})
    # The formats yuvj… are those of the full range, by an older name.
    pix_fmt = kind.pix_fmt.replace("yuvj", "yuv")
    with av.open(file, "w", format="matroska") as output:
        stream: Any = output.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        context = stream.codec_context
        context.thread_count, context.color_range, context.colorspace = 1, kind.colour_range, kind.matrix
        for _ in range(FRAMES):
            image = rng.integers(0, 256, (height, width, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pix_fmt, threads=1)
            frame.color_range, frame.colorspace = kind.colour_range, kind.matrix
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return file.getvalue()
