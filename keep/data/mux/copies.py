"""Copies everything but the pictures into another container: tags, chapters, audio and subtitles."""

from collections.abc import Iterator
from typing import Any

import av.error

from keep.data.mux.source import VideoSource, open_video, video_stream

MP4 = frozenset({".mp4", ".mov", ".m4v"})
_OF_THE_FILE = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder", "DURATION"})


class Copies:
    """Copies tags and chapters of a video file into another, and audio and subtitles in step with its pictures.

    Args:
        source: the video file.
        output: the container to write.
        picture: video stream of ``output``.
        suffix: suffix of the written file.
        skipped: descriptions of streams that do not fit are appended to it.
    """

    def __init__(self, source: VideoSource, output: Any, picture: Any, suffix: str, skipped: list[str]) -> None:
        self._start, self._output = source.start, output
        self._pending: Any = None  # the next packet to copy
        self._inputs = inputs = open_video(source.path)
        try:
            video = video_stream(inputs, source.path)
            self._streams = add_copies(output, picture, inputs, video, suffix, skipped)
        except BaseException:
            inputs.close()
            raise
        wanted = [inputs.streams[i] for i in self._streams]
        self._packets: Iterator[Any] = inputs.demux(wanted) if wanted else iter(())

    def until(self, seconds: float) -> None:
        """Copy the packets up to this time of the output."""
        while True:
            packet = self._pending or self._next()
            if packet is None:
                return
            if packet.dts * packet.time_base > seconds:
                self._pending = packet
                return
            self._pending = None
            packet.stream = self._streams[packet.stream_index]
            self._output.mux(packet)

    def _next(self) -> Any:
        while True:
            try:
                packet = next(self._packets, None)
            except av.error.FFmpegError:  # truncated: everything before is copied
                self._packets = iter(())
                return None
            if packet is None:
                return None
            if packet.size and packet.dts is not None:
                shift = round(self._start / packet.time_base)
                packet.dts -= shift
                packet.pts = packet.dts if packet.pts is None else packet.pts - shift
                return packet

    def close(self) -> None:
        """Close the source file."""
        self._inputs.close()


def add_copies(output: Any, picture: Any, inputs: Any, video: Any, suffix: str, skipped: list[str]) -> dict[int, Any]:
    """Add everything but the pictures: tags, chapters, audio and subtitles.

    Args:
        output: the container to write.
        picture: its video stream.
        inputs: the container to copy from.
        video: video stream of ``inputs``.
        suffix: suffix of the written file.
        skipped: descriptions of streams that do not fit are appended to it.

    Returns:
        Index of a copied stream → new stream.
    """
    picture.metadata.update({k: v for k, v in video.metadata.items() if k in ("language", "title")})
    output.metadata.update({k: v for k, v in inputs.metadata.items() if k not in _OF_THE_FILE})
    if chapters := inputs.chapters():
        output.set_chapters(chapters)
    copied = {}
    for stream in inputs.streams:
        if stream.type not in ("audio", "subtitle"):
            continue
        name = stream.codec_context.name if stream.codec_context is not None else "unknown"
        what = f"{stream.type} stream {stream.index} ({name})"
        try:
            if stream.codec_context is None or not _fits(stream, suffix):
                raise ValueError
            copy = output.add_stream_from_template(stream)
        except (ValueError, av.error.FFmpegError):
            skipped.append(f"{what} does not fit into {suffix}")
            continue
        copy.metadata.update({k: v for k, v in stream.metadata.items() if k in ("language", "title")})
        copy.disposition = stream.disposition
        copied[stream.index] = copy
    return copied


def container_options(suffix: str) -> dict[str, str]:
    """Options for a file with this suffix. In MP4 the index is moved to the front, to play while downloading."""
    return {"movflags": "+faststart"} if suffix.lower() in MP4 else {}


def _fits(stream: Any, suffix: str) -> bool:
    name = stream.codec_context.name
    if stream.type == "subtitle" and suffix.lower() in MP4:
        return name in ("mov_text", "dvdsub", "dvd_subtitle")  # FFmpeg accepts others and then fails at the header
    return True
