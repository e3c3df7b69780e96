"""Video compression: […]_codec of eq. (9)."""

import importlib
import io
import platform
import re
import subprocess
from abc import ABC, abstractmethod
from fractions import Fraction
from functools import cache
from typing import Annotated, Any, Literal

import av
import av.error
import numpy as np
from av.codec.codec import UnknownCodecError
from av.video.reformatter import VideoReformatter

from keep.config.registry import CODECS, DEGRADATIONS
from keep.degradation.pipeline import check_choice, check_range, choose, to_uint8
from keep.utils.errors import UserError
from keep.utils.ranges import Crf, FrameRate, Share

Preset = Literal[
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"
]
PixelFormat = Literal["yuv420p", "yuv422p", "yuv444p"]
ENCODERS = {"libx264": "libx264", "h264": "libx264"}
"""Codec in the options → encoder that defines its CRF and preset. No others: mpeg4 ignores a CRF, and the bytes of
libx265 vary from call to call even with one thread (measured)."""


@DEGRADATIONS.register()
class VideoCodec:
    """Compression by a real video encoder, one codec and one CRF per clip: […]_codec of eq. (9).

    Args:
        codecs: codecs to draw from. Supplement A.4: libx264 and h264. They are the same encoder if FFmpeg has libx264,
            and an error otherwise, as no other encoder has its CRF.
        crf: range of the constant rate factor; integers drawn uniformly, both ends included.
            Supplement A.4: [25, 45] in training.
        fps: frame rate for the encoder. The effect of a CRF depends on it (longer frames get more bits), so it is
            recorded with the drawn parameters. Not in the paper; the public code uses 1.
        preset: trades the encoder's speed for compression.
        backend: encoder and decoder: PyAV, in memory, or FFmpeg, the program on this machine.
        probabilities: of each of ``codecs``, with sum 1; null makes them equally likely.
        pix_fmt: chroma subsampling: 4:2:0 (as nearly all video), 4:2:2, or 4:4:4.
    """

    def __init__(
        self,
        codecs: tuple[str, ...] = ("libx264", "h264"),
        crf: tuple[Crf, Crf] = (25, 45),
        fps: FrameRate = 25,
        preset: Preset = "medium",
        backend: Annotated[Any, CODECS] = "PyAV",
        probabilities: tuple[Share, ...] | None = None,
        pix_fmt: PixelFormat = "yuv420p",
    ) -> None:
        check_range(self, "crf", crf)
        check_choice(self, "codecs", codecs, probabilities)
        self.codecs, self.crf, self.fps, self.preset = codecs, crf, fps, preset
        self.probabilities, self.pix_fmt = probabilities, pix_fmt
        self.backend: Backend = CODECS[backend]() if isinstance(backend, str) else backend
        for codec in codecs:
            self.backend.check(codec)

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        return {
            "codec": choose(rng, self.codecs, self.probabilities),
            "crf": int(rng.integers(self.crf[0], self.crf[1], endpoint=True)),
            "fps": self.fps,
            "preset": self.preset,
            "pix_fmt": self.pix_fmt,
        }

    def apply(
        self, clip: np.ndarray, codec: str, crf: int, fps: int, preset: str, pix_fmt: str = "yuv420p"
    ) -> np.ndarray:
        """(T, h, w, 3) float32, first rounded to uint8 → the decoded clip, same shape, float32."""
        return self.backend.compress(to_uint8(clip), codec, crf, fps, preset, pix_fmt).astype(np.float32)


class Backend(ABC):
    """Encodes and decodes clips: with one thread, so that the bytes do not depend on the machine; limited-range BT.601.

    ``clip`` is uint8 (T, h, w, 3) RGB; an odd side is padded to even by repeating its last row or column.
    """

    @abstractmethod
    def check(self, codec: str) -> None:
        """Raise UserError unless ``codec`` is in ``ENCODERS`` and its encoder is available."""

    @abstractmethod
    def encode(self, clip: np.ndarray, codec: str, crf: int, fps: int, preset: str, pix_fmt: str = "yuv420p") -> bytes:
        """The clip as an MP4 file."""

    @abstractmethod
    def decode(self, data: bytes) -> np.ndarray:
        """An MP4 file as uint8 (T, h, w, 3) RGB; h and w are even."""

    def compress(
        self, clip: np.ndarray, codec: str, crf: int, fps: int, preset: str, pix_fmt: str = "yuv420p"
    ) -> np.ndarray:
        """The clip after encoding and decoding, same shape; deterministic.

        Raises:
            UserError: the codec is not available, or loses frames.
        """
        self.check(codec)
        return self._cropped(self.decode(self.encode(clip, codec, crf, fps, preset, pix_fmt)), clip, codec)

    def version(self, codec: str = "libx264") -> str:
        """The encoder's own name and version, as it writes them into its stream."""
        data = self.encode(np.zeros((1, 64, 64, 3), np.uint8), codec, 30, 25, "medium")
        found = re.search(rb"x264 - core \d+( r\d+ \w+)?", data)
        return found[0].decode() if found else ENCODERS[codec]

    @staticmethod
    def _cropped(decoded: np.ndarray, clip: np.ndarray, codec: str) -> np.ndarray:
        if len(decoded) != len(clip):
            raise UserError(f"codec {codec}: {len(clip)} frames went in, {len(decoded)} came out")
        return decoded[:, : clip.shape[1], : clip.shape[2]]


@CODECS.register()
class PyAV(Backend):
    """Encodes and decodes in memory, by the FFmpeg libraries inside PyAV."""

    def check(self, codec: str) -> None:
        _check_name(codec)
        require_encoder(ENCODERS[codec])

    def compress(
        self, clip: np.ndarray, codec: str, crf: int, fps: int, preset: str, pix_fmt: str = "yuv420p"
    ) -> np.ndarray:
        # Without the MP4 file in between: the same frames, faster.
        self.check(codec)
        decoder: Any = av.CodecContext.create("h264", "r")
        decoder.thread_count = 1
        encoder: Any = av.CodecContext.create(ENCODERS[codec], "w")
        _set_up(encoder, clip, crf, fps, preset, pix_fmt)
        packets = [*(p for frame in _frames(clip, fps, pix_fmt) for p in encoder.encode(frame)), *encoder.encode()]
        frames = [*(f for packet in packets for f in decoder.decode(packet)), *decoder.decode(None)]
        return self._cropped(_to_rgb(frames), clip, codec)

    def encode(self, clip: np.ndarray, codec: str, crf: int, fps: int, preset: str, pix_fmt: str = "yuv420p") -> bytes:
        buffer = io.BytesIO()
        with av.open(buffer, "w", format="mp4") as container:
            stream: Any = container.add_stream(ENCODERS[codec], rate=fps)
            _set_up(stream.codec_context, clip, crf, fps, preset, pix_fmt)
            for frame in _frames(clip, fps, pix_fmt):
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return buffer.getvalue()

    def decode(self, data: bytes) -> np.ndarray:
        with av.open(io.BytesIO(data), "r") as container:
            container.streams.video[0].codec_context.thread_count = 1
            return _to_rgb(list(container.decode(video=0)))


def _set_up(context: Any, clip: np.ndarray, crf: int, fps: int, preset: str, pix_fmt: str) -> None:
    context.height, context.width = (side + side % 2 for side in clip.shape[1:3])
    context.pix_fmt, context.framerate, context.time_base = pix_fmt, Fraction(fps), Fraction(1, fps)
    context.thread_count = 1  # with more, the bytes depend on the machine
    context.options = {"crf": str(crf), "preset": preset, **repeatable(clip.shape[2])}


def repeatable(width: int) -> dict[str, str]:
    """Options that make x264 deterministic at this frame width.

    Its AVX-512 code for the macroblock tree (``mbtree_propagate_list``) processes the blocks of a row in groups of
    eight. If their number is not a multiple of eight, it also reads memory beyond the row, and the bytes vary from call
    to call. The code for older processors reads only the row. With SSE4.2, which every x86-64 processor supported by
    NumPy has, the bytes are those of AVX2 (measured), and encoding takes as long at the size of a low-quality face (6 %
    longer at 720p).
    """
    groups_of_eight = -(-width // 16) % 8 == 0
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return {"x264-params": "asm=SSE4.2"} if x86 and not groups_of_eight else {}


def _frames(clip: np.ndarray, fps: int, pix_fmt: str) -> Any:
    convert: Any = VideoReformatter().reformat
    for number, image in enumerate(pad_to_even(clip)):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame = convert(frame, format=pix_fmt, dst_colorspace="itu601", threads=1)
        frame.pts, frame.time_base = number, Fraction(1, fps)
        yield frame


def _to_rgb(frames: list[Any]) -> np.ndarray:
    convert: Any = VideoReformatter().reformat
    images = [convert(f, format="rgb24", src_colorspace="itu601", threads=1).to_ndarray() for f in frames]
    return np.stack(images) if images else np.empty((0, 0, 0, 3), np.uint8)


@CODECS.register()
class FFmpeg(Backend):
    """Encodes and decodes with the FFmpeg program of this machine, in one process each, through ffmpeg-python.

    Slower than PyAV; for the encoder of a specific FFmpeg build. The package: ``pip install keep-vfsr[ffmpeg]``.

    Args:
        command: name or path of the program.
    """

    def __init__(self, command: str = "ffmpeg") -> None:
        self.command = command

    def check(self, codec: str) -> None:
        _check_name(codec)
        _ffmpeg()
        if ENCODERS[codec] not in _program_encoders(self.command):
            raise UserError(f"the FFmpeg program {self.command!r} has no video encoder {ENCODERS[codec]!r}")

    def encode(self, clip: np.ndarray, codec: str, crf: int, fps: int, preset: str, pix_fmt: str = "yuv420p") -> bytes:
        clip = pad_to_even(clip)
        size = f"{clip.shape[2]}x{clip.shape[1]}"
        source = _ffmpeg().input("pipe:", format="rawvideo", pix_fmt="rgb24", s=size, r=fps)
        written = source.output(
            "pipe:", vcodec=ENCODERS[codec], pix_fmt=pix_fmt, r=fps, threads=1, crf=crf, preset=preset,
            format="mp4", movflags="frag_keyframe+empty_moov",  # a pipe cannot be rewound for the header
            **repeatable(clip.shape[2]),
        )  # fmt: skip
        return self._run(written, np.ascontiguousarray(clip).tobytes())

    def decode(self, data: bytes) -> np.ndarray:
        read = _ffmpeg().input("pipe:", threads=1).output("pipe:", format="rawvideo", pix_fmt="rgb24")
        with av.open(io.BytesIO(data)) as container:  # only for the frame size
            context = container.streams.video[0].codec_context
            height, width = context.height, context.width
        return np.frombuffer(self._run(read, data), np.uint8).reshape(-1, height, width, 3)

    def _run(self, stream: Any, data: bytes) -> bytes:
        try:
            return stream.global_args("-loglevel", "error").run(
                cmd=self.command, input=data, capture_stdout=True, capture_stderr=True
            )[0]
        except _ffmpeg().Error as error:
            lines = error.stderr.decode(errors="replace").strip().splitlines()
            raise UserError(f"the FFmpeg program {self.command!r} failed: {lines[-1] if lines else error}") from None


def _ffmpeg() -> Any:
    try:
        ffmpeg = importlib.import_module("ffmpeg")
    except ImportError:
        raise UserError("the codec backend FFmpeg needs ffmpeg-python: pip install keep-vfsr[ffmpeg]") from None
    if not hasattr(ffmpeg, "input"):
        raise UserError("the package 'ffmpeg' hides the needed 'ffmpeg-python': pip uninstall ffmpeg")
    return ffmpeg


@cache
def _program_encoders(command: str) -> frozenset[str]:
    """The video encoders of an FFmpeg program."""
    try:
        listing = subprocess.run([command, "-hide_banner", "-encoders"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(
            f"the codec backend FFmpeg cannot run {command!r} ({error}): install FFmpeg, or use backend PyAV"
        ) from None
    return frozenset(re.findall(r"^ V\S{5} (\S+)", listing.stdout, re.MULTILINE))


def encoder_version(codec: str = "libx264") -> str:
    """The version of the encoder inside PyAV, e.g. ``"x264 - core 165"``."""
    return PyAV().version(codec)


def pad_to_even(frames: np.ndarray) -> np.ndarray:
    """(..., H, W, 3) with the last row or column repeated if a side is odd, as 4:2:0 chroma needs."""
    height, width = frames.shape[-3:-1]
    if height % 2 == 0 and width % 2 == 0:
        return frames
    edges = [(0, 0)] * (frames.ndim - 3) + [(0, height % 2), (0, width % 2), (0, 0)]
    return np.pad(frames, edges, mode="edge")


def _check_name(codec: str) -> None:
    if codec not in ENCODERS:
        raise UserError(f"no video codec {codec!r} to degrade with; known: {', '.join(sorted(ENCODERS))}")


def require_encoder(name: str) -> None:
    """Raise UserError, with the available encoders, unless the local FFmpeg has the video encoder ``name``."""
    if has_encoder(name):
        return
    usual = ("libx264", "libopenh264", "libx265", "libvpx-vp9", "libsvtav1", "libaom-av1", "mpeg4", "ffv1")
    available = ", ".join(n for n in usual if has_encoder(n)) or "none of the usual ones"
    raise UserError(f"the FFmpeg that PyAV uses has no video encoder {name!r}; it has {available}")


def has_encoder(name: str) -> bool:
    """Whether the local FFmpeg has the video encoder ``name``."""
    try:
        return av.Codec(name, "w").type == "video"
    except UnknownCodecError:
        return False
