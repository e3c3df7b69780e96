"""Copies everything but the restored pictures into another container: tags, chapters, sound, subtitles, attachments."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import av.error

from keep.data.mux.reading import Packets
from keep.data.mux.sound import Transcoder, add_copy
from keep.data.mux.source import VideoSource, open_video, video_stream
from keep.data.mux.streams import Plan, plan_streams
from keep.data.mux.tags import add_tags, describe
from keep.data.mux.times import shift

_TIMECODE_RATES = frozenset({24, 25, 30, 48, 50, 60, 100, 120, 150})  # those FFmpeg writes time codes for


class Copies:
    """Copies tags and chapters of a video file into another, and its other streams in step with the pictures.

    Args:
        source: the video file.
        output: the container to write.
        picture: video stream of ``output``.
        suffix: suffix of the written file.

    Attributes:
        plans: what becomes of each stream.
    """

    def __init__(self, source: VideoSource, output: Any, picture: Any, suffix: str) -> None:
        self._start, self._output = source.start, output
        self._pending: tuple[Any, float] | None = None  # the next packet to copy, and its time
        self._inputs = inputs = open_video(source.path)
        try:
            video = video_stream(inputs, source.path)
            add_tags(output, picture, inputs, video)
            self.plans = plan_streams(inputs, video, suffix)
            self._covers: list[Any] = []
            self._targets: dict[int, Track | Transcoder] = {}
            for plan in self.plans:
                self._add(plan, inputs.streams[plan.index], picture, source, suffix)
        except BaseException:
            inputs.close()
            raise
        self._packets: Iterator[Any] = iter(Packets(inputs)) if self._targets else iter(())

    def until(self, seconds: float) -> None:
        """Copy the packets up to this time of the output."""
        for cover in self._covers:
            self._output.mux(cover)
        self._covers = []
        while pending := self._pending or self._next():
            packet, time = pending
            if time > seconds:
                self._pending = pending
                return
            self._pending = None
            self._targets[packet.stream_index].write(packet)

    def finish(self) -> None:
        """Copy everything that is left."""
        self.until(float("inf"))
        for target in self._targets.values():
            target.finish()

    @property
    def refused(self) -> int:
        """Packets that the container refused: they were damaged in the input."""
        return sum(target.refused for target in self._targets.values() if isinstance(target, Track))

    def close(self) -> None:
        """Close the source file."""
        self._inputs.close()

    def _next(self) -> tuple[Any, float] | None:
        for packet in self._packets:
            if packet.stream_index in self._targets and (packet.dts is not None or packet.pts is not None):
                packet.dts = packet.pts if packet.dts is None else packet.dts
                packet.pts = packet.dts if packet.pts is None else packet.pts
                shift(packet, -self._start)
                return packet, float(packet.dts * packet.time_base)
        return None

    def _add(self, plan: Plan, stream: Any, picture: Any, source: VideoSource, suffix: str) -> None:
        """Do what ``plan`` says to one stream of the input."""
        if plan.how == "attach":
            name, kind, data = attachment(stream)
            self._output.add_attachment(name, kind, data)
        elif plan.how == "tag" and round(source.fps) in _TIMECODE_RATES:
            picture.metadata["timecode"] = stream.metadata["timecode"]
        elif plan.how == "transcode":
            self._targets[plan.index] = Transcoder(self._output, stream, plan.encoder)
            describe(self._targets[plan.index].stream, stream, suffix)
        elif plan.how == "copy":
            copy = add_copy(self._output, stream)
            adts = stream.codec_context.name == "aac" and not stream.codec_context.extradata
            describe(copy, stream, suffix)
            if plan.cover:
                cover = av.Packet(attachment(stream)[2])
                cover.stream, cover.pts, cover.dts, cover.is_keyframe = copy, 0, 0, True
                self._covers.append(cover)
            else:
                self._targets[plan.index] = Track(self._output, copy, adts)


class Track:
    """Writes the packets of one copied stream, in ascending order of time: containers refuse others.

    Args:
        output: the container to write.
        stream: its stream.
        adts: AAC as in broadcasts: each packet must have its header.

    Attributes:
        refused: number of packets that the container refused.
    """

    def __init__(self, output: Any, stream: Any, adts: bool) -> None:
        self.stream, self._output = stream, output
        self._last: int | None = None
        self._adts = adts
        self.refused = 0

    def write(self, packet: Any) -> None:
        """Write a packet of the input."""
        if self._adts and not is_adts(bytes(packet)):
            self.refused += 1
            return
        if self._last is not None and packet.dts <= self._last:
            packet.dts = self._last + 1
            packet.pts = max(packet.pts, packet.dts)
        self._last = packet.dts
        packet.stream = self.stream
        try:
            self._output.mux(packet)
        except (av.error.InvalidDataError, av.error.ArgumentError):  # it was damaged in the input
            self.refused += 1

    def finish(self) -> None:
        """Nothing waits."""


def is_adts(data: bytes) -> bool:
    """Whether a packet of AAC starts with an intact ADTS header. FFmpeg's muxers fail at others, some packets later."""
    synchronous = len(data) > 7 and data[0] == 0xFF and data[1] & 0xF6 == 0xF0
    return synchronous and (data[2] >> 2) & 15 < 13 and data[6] & 3 == 0  # a sampling rate; one block


def attachment(stream: Any) -> tuple[str, str, bytes]:
    """(file name, media type, content) of an attachment or of cover art."""
    if stream.type == "attachment":
        return stream.metadata.get("filename", "attachment"), stream.mimetype or "application/octet-stream", stream.data
    with open_video(Path(stream.container.name)) as container:
        content = next(bytes(packet) for packet in container.demux(container.streams[stream.index]) if packet.size)
    kind = {"mjpeg": "jpeg", "png": "png"}.get(stream.codec_context.name, stream.codec_context.name)
    name = stream.metadata.get("filename", f"cover.{'jpg' if kind == 'jpeg' else kind}")
    return name, stream.metadata.get("mimetype", f"image/{kind}"), content
