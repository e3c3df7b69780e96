"""Video compression: […]_codec of eq. (9)."""

import io
from typing import Annotated, Any, Literal

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from pydantic import Field

from keep.degradation.pipeline import check_range, to_uint8
from keep.errors import UserError
from keep.registry import CODECS, DEGRADATIONS

Preset = Literal[
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"
]


@DEGRADATIONS.register()
class VideoCodec:
    """Compression by a real video encoder, one codec and one CRF a clip: […]_codec of eq. (9).

    Args:
        codecs: codecs to draw from, all equally likely. Supplement A.4: libx264 and h264, which are one
            encoder wherever FFmpeg has libx264 (and an error elsewhere, as no other encoder knows its CRF).
        crf: range of the constant rate factor, drawn uniformly from its integers, both ends included.
            Supplement A.4: [25, 45] in training.
        fps: frame rate told to the encoder. It changes what a CRF means (a longer frame is given more bits),
            so it is recorded in the draw. Not in the paper; the public code uses 1.
        preset: libx264's speed against compression.
        backend: what encodes and decodes.
    """

    def __init__(
        self,
        codecs: tuple[str, ...] = ("libx264", "h264"),
        crf: tuple[Annotated[int, Field(ge=0, le=51)], Annotated[int, Field(ge=0, le=51)]] = (25, 45),
        fps: Annotated[int, Field(ge=1)] = 25,
        preset: Preset = "medium",
        backend: Annotated[Any, CODECS] = "PyAV",
    ) -> None:
        check_range(self, "crf", crf)
        if not codecs:
            raise UserError("VideoCodec: codecs is empty; name at least one, e.g. libx264")
        self.codecs, self.crf, self.fps, self.preset = codecs, crf, fps, preset
        self.backend = CODECS[backend]() if isinstance(backend, str) else backend
        for codec in codecs:
            self.backend.check(codec)

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        return {
            "codec": self.codecs[int(rng.integers(len(self.codecs)))],
            "crf": int(rng.integers(self.crf[0], self.crf[1], endpoint=True)),
            "fps": self.fps,
            "preset": self.preset,
        }

    def apply(self, clip: np.ndarray, codec: str, crf: int, fps: int, preset: str) -> np.ndarray:
        """(T, h, w, 3) float32, rounded to uint8 first → the decoded clip, same shape, float32."""
        return self.backend.compress(to_uint8(clip), codec, crf, fps, preset).astype(np.float32)


@CODECS.register()
class PyAV:
    """Encodes and decodes in memory by PyAV: mp4, yuv420p, limited-range BT.601, one thread."""

    def __init__(self) -> None:
        # A codec's name in the options → the encoder that gives its CRF and preset their meaning.
        self.encoders = {"libx264": "libx264", "h264": "libx264"}

    def check(self, codec: str) -> None:
        """Raise UserError unless ``codec`` is one that can be drawn and its encoder is here."""
        if codec not in self.encoders:
            raise UserError(f"no video codec {codec!r} to degrade with; known: {', '.join(sorted(self.encoders))}")
        require_encoder(self.encoders[codec])

    def compress(self, clip: np.ndarray, codec: str, crf: int, fps: int, preset: str) -> np.ndarray:
        """uint8 (T, h, w, 3) RGB → the same after encoding and decoding; deterministic."""
        self.check(codec)
        frames, height, width = clip.shape[:3]
        data = self._encode(pad_to_even(clip), self.encoders[codec], crf, fps, preset)
        decoded = self._decode(data)
        if len(decoded) != frames:
            raise UserError(f"codec {codec}: {frames} frames went in, {len(decoded)} came out")
        return np.stack(decoded)[:, :height, :width]

    def _encode(self, clip: np.ndarray, encoder: str, crf: int, fps: int, preset: str) -> bytes:
        buffer = io.BytesIO()
        with av.open(buffer, "w", format="mp4") as container:
            stream: Any = container.add_stream(encoder, rate=fps, options={"crf": str(crf), "preset": preset})
            stream.height, stream.width, stream.pix_fmt = clip.shape[1], clip.shape[2], "yuv420p"
            stream.codec_context.thread_count = 1  # with more, the bytes depend on the machine
            for image in clip:
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
                container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace="itu601", threads=1)))
            container.mux(stream.encode())
        return buffer.getvalue()

    def _decode(self, data: bytes) -> list[np.ndarray]:
        with av.open(io.BytesIO(data), "r") as container:
            container.streams.video[0].codec_context.thread_count = 1
            return [
                frame.to_ndarray(format="rgb24", src_colorspace="itu601", threads=1)
                for frame in container.decode(video=0)
            ]


def pad_to_even(frames: np.ndarray) -> np.ndarray:
    """(..., H, W, 3) with its last row and column repeated where a side is odd, as 4:2:0 chroma needs."""
    height, width = frames.shape[-3:-1]
    edges = [(0, 0)] * (frames.ndim - 3) + [(0, height % 2), (0, width % 2), (0, 0)]
    return np.pad(frames, edges, mode="edge")


def require_encoder(name: str) -> None:
    """Raise UserError, naming what there is, unless the local FFmpeg has the video encoder ``name``."""
    if has_encoder(name):
        return
    usual = ("libx264", "libopenh264", "libx265", "libvpx-vp9", "libsvtav1", "libaom-av1", "mpeg4", "ffv1")
    here = ", ".join(n for n in usual if has_encoder(n)) or "none of the usual ones"
    raise UserError(f"the FFmpeg that PyAV uses has no video encoder {name!r}; it has {here}")


def has_encoder(name: str) -> bool:
    """Whether the local FFmpeg has the video encoder ``name``."""
    try:
        return av.Codec(name, "w").type == "video"
    except UnknownCodecError:
        return False
