"""Writes sound that a container does not take with a lossless encoder."""

from fractions import Fraction
from typing import Any

import av
import av.error

FORMATS = {"flac": ("s16", "s32"), "alac": ("s16p", "s32p")}
"""Encoder → its sample formats for sound of at most 16 bits, and of more. More than 24 bits are rounded to 24."""
SHORT = ("u8", "u8p", "s16", "s16p")  # sample formats of at most 16 bits
GAP = Fraction(1, 10)  # seconds without sound that become silence: FLAC and ALAC have no time stamps inside


class Transcoder:
    """Decodes the packets of one sound stream, and writes them with a lossless encoder.

    Args:
        output: the container to write.
        source: the sound stream of the input.
        encoder: the encoder, see :func:`keep.data.mux.streams.plan_stream`.
    """

    def __init__(self, output: Any, source: Any, encoder: str) -> None:
        self._output, self._source = output, source
        self.stream = add_audio(output, encoder, source.codec_context)
        self._resampler: Any = None
        self._next = 0  # time of the next sample, in units of 1 / rate

    def write(self, packet: Any) -> None:
        """Write what a packet of the input holds; sound that cannot be decoded becomes silence."""
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            return
        for frame in frames:
            self._push(frame)

    def finish(self) -> None:
        """Write everything that waits."""
        try:
            for frame in self._source.decode(None):
                self._push(frame)
        except av.error.FFmpegError:
            pass  # the last packet was cut
        if self._resampler is not None:
            self._encode(self._resampler.resample(None))
            self._output.mux(self.stream.encode(None))

    def _push(self, frame: Any) -> None:
        context = self.stream.codec_context
        time = self._next if frame.pts is None else round(frame.pts * frame.time_base * context.rate)
        if self._resampler is None:
            self._resampler = av.AudioResampler(
                context.format, context.layout, context.rate, frame_size=context.frame_size or None
            )
            self._next = time
        elif time - self._next > GAP * context.rate:
            for start in range(self._next, time, context.rate):
                self._add(_silence(frame, min(context.rate, time - start)))
        self._add(frame)

    def _add(self, frame: Any) -> None:
        rate = self.stream.codec_context.rate
        frame.pts, frame.time_base = self._next, Fraction(1, rate)
        self._next += round(frame.samples * Fraction(rate, frame.rate))
        self._encode(self._resampler.resample(frame))

    def _encode(self, frames: list[Any]) -> None:
        for frame in frames:
            self._output.mux(self.stream.encode(frame))


def add_audio(output: Any, encoder: str, context: Any) -> Any:
    """A sound stream of ``output`` with the rate, channels and precision of the decoder ``context``."""
    stream = output.add_stream(encoder, rate=context.rate)
    stream.codec_context.layout = layout_of(context)
    if encoder in FORMATS:
        short = context.format is not None and context.format.name in SHORT
        stream.codec_context.format = FORMATS[encoder][not short]
    return stream


def add_copy(output: Any, stream: Any) -> Any:
    """A stream of ``output`` for the packets of ``stream``.

    MP4 needs the places of PCM's channels, and fails at its end without them; AVI and Matroska store only their number.
    """
    copy = output.add_stream_from_template(stream, opaque=True)
    if stream.type == "audio" and "channels" in stream.codec_context.layout.name:
        copy.codec_context.layout = layout_of(stream.codec_context)
    return copy


def layout_of(context: Any) -> str:
    """The channel layout of a decoder; where only a number of channels is known, the usual one for it."""
    usual: dict[int, str] = {1: "mono", 2: "stereo", 3: "2.1", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
    name: str = context.layout.name
    return (usual.get(context.channels) or name) if "channels" in name else name


def _silence(like: Any, samples: int) -> Any:
    """A silent frame in the format of another."""
    frame = av.AudioFrame(format=like.format.name, layout=like.layout.name, samples=samples)
    frame.rate = like.rate
    for plane in frame.planes:
        plane.update((b"\x80" if like.format.name.startswith("u8") else b"\0") * plane.buffer_size)
    return frame
