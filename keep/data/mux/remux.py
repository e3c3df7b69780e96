"""Copies a video into another container without re-encoding."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import av.error

from keep.data.decode import ffmpeg_path, frame_rate
from keep.data.mux.copies import Copies
from keep.data.mux.reading import Packets
from keep.data.mux.source import VideoSource, open_video, video_stream
from keep.data.mux.tags import MP4, container_options
from keep.data.mux.times import shift
from keep.utils.errors import UserError
from keep.utils.io import AtomicWrite, remove_leftovers

IN_MP4 = frozenset({"h264", "hevc", "av1", "vp9", "mpeg4"})  # FFmpeg writes others too, but few players read them


def remux(source: VideoSource, path: str | Path) -> None:
    """Copy the pictures of ``source`` into another container without re-encoding; the rest as :class:`Copies` does.

    Raises:
        UserError: the container cannot store the pictures unchanged.
    """
    path = Path(path)
    unfinished = AtomicWrite(path)
    remove_leftovers(path)
    options = container_options(path.suffix, source.tags)
    try:
        with (
            open_video(source.path) as inputs,
            av.open(ffmpeg_path(unfinished.temporary), "w", options=options) as output,
        ):
            video = video_stream(inputs, source.path)
            codec = video.codec_context.codec.canonical_name
            if path.suffix.lower() in MP4 and codec not in IN_MP4:
                raise ValueError(f"players cannot read {codec} in MP4")
            # Opaque: no encoder of the same name is needed.
            picture = output.add_stream_from_template(video, opaque=True)
            if source.rotation or source.mirrored:
                picture.set_display_rotation(source.rotation, hflip=source.mirrored)
            if codec == "hevc" and path.suffix.lower() in MP4:
                picture.codec_context.codec_tag = "hvc1"
            copies = Copies(source, output, picture, path.suffix)
            try:
                for packet in _with_times(inputs, video):
                    shift(packet, -source.start)
                    copies.until(float(packet.dts * packet.time_base))
                    packet.stream = picture
                    output.mux(packet)
                copies.finish()
            finally:
                copies.close()
        copy = VideoSource(unfinished.temporary)
        if shape_of(copy) != shape_of(source):
            raise ValueError("the pictures' shape or rotation would be lost")
        unfinished.commit()
    except (UserError, ValueError, av.error.FFmpegError) as error:
        raise UserError(f"{path}: cannot store the pictures of {source.path} unchanged: {error}") from error
    finally:
        unfinished.discard()


def shape_of(video: VideoSource) -> tuple[Any, ...]:
    """Size, orientation and pixel shape: what a copy must have kept."""
    return video.height, video.width, video.rotation % 360, video.mirrored, video.pixel_aspect or 1


def _with_times(inputs: Any, video: Any) -> Iterator[Any]:
    """The pictures' packets. Decoding times that are missing at the start, before B-frames, are filled in."""
    waiting: list[Any] = []
    last = None
    for packet in Packets(inputs):
        if packet.stream_index != video.index:
            continue
        if packet.pts is None:
            raise ValueError("its pictures have no time stamps")
        waiting.append(packet)
        if packet.dts is not None:
            step = max(1, round(1 / frame_rate(video) / packet.time_base))
            for steps, earlier in enumerate(reversed(waiting)):
                earlier.dts = packet.dts - steps * step
            for ready in waiting:
                if last is not None and ready.dts <= last:
                    raise ValueError("its time stamps are not in order")
                last = ready.dts
                yield ready
            waiting = []
    if waiting:
        raise ValueError("its pictures have no time stamps")
