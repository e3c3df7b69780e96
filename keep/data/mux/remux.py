"""Copies a video into another container without re-encoding."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import av.error

from keep.data.decode import ffmpeg_path
from keep.data.mux.copies import MP4, add_copies, container_options
from keep.data.mux.source import VideoSource, open_video, video_stream
from keep.utils.errors import UserError
from keep.utils.io import AtomicWrite, remove_leftovers

IN_MP4 = frozenset({"h264", "hevc", "av1", "vp9", "mpeg4"})  # FFmpeg writes others too, but few players read them


def remux(source: VideoSource, path: str | Path) -> list[str]:
    """Copy all streams of ``source`` into another container, without re-encoding.

    Returns:
        descriptions of the streams that do not fit.

    Raises:
        UserError: the container cannot store the pictures unchanged.
    """
    path, skipped = Path(path), []
    unfinished = AtomicWrite(path)
    remove_leftovers(path)
    try:
        with (
            open_video(source.path) as inputs,
            av.open(ffmpeg_path(unfinished.temporary), "w", options=container_options(path.suffix)) as output,
        ):
            video = video_stream(inputs, source.path)
            codec = video.codec_context.codec.canonical_name
            if path.suffix.lower() in MP4 and codec not in IN_MP4:
                raise ValueError(f"players cannot read {codec} in MP4")
            # Opaque: no encoder of the same name is needed.
            picture = output.add_stream_from_template(video, opaque=True)
            if source.rotation:
                picture.set_display_rotation(source.rotation)
            if codec == "hevc" and path.suffix.lower() in MP4:
                picture.codec_context.codec_tag = "hvc1"
            copied = add_copies(output, picture, inputs, video, path.suffix, skipped)
            copied[video.index] = picture
            for packet in _with_times(inputs.demux([inputs.streams[i] for i in copied]), video):
                shift = round(source.start / packet.time_base)
                packet.dts, packet.pts = packet.dts - shift, packet.pts - shift
                packet.stream = copied[packet.stream_index]
                output.mux(packet)
        copy = VideoSource(unfinished.temporary)
        kept = (copy.height, copy.width, copy.rotation, copy.pixel_aspect or 1)
        if kept != (source.height, source.width, source.rotation, source.pixel_aspect or 1):
            raise ValueError("the pictures' shape or rotation would be lost")
        unfinished.commit()
    except (UserError, ValueError, av.error.FFmpegError) as error:
        raise UserError(f"{path}: cannot store the pictures of {source.path} unchanged: {error}") from error
    finally:
        unfinished.discard()
    return skipped


def _with_times(packets: Iterator[Any], video: Any) -> Iterator[Any]:
    """``packets`` with missing decoding times filled in: some files omit them at the start, before B-frames."""
    waiting: list[Any] = []
    for packet in packets:
        if not packet.size:
            continue
        if packet.stream_index != video.index:
            packet.dts = packet.pts if packet.dts is None else packet.dts
            if packet.dts is not None:
                packet.pts = packet.dts if packet.pts is None else packet.pts
                yield packet
            continue
        if packet.pts is None:
            raise ValueError("its pictures have no time stamps")
        waiting.append(packet)
        if packet.dts is not None:
            step = max(1, round(1 / (video.average_rate or 25) / packet.time_base))
            for steps, earlier in enumerate(reversed(waiting)):
                earlier.dts = packet.dts - steps * step
            yield from waiting
            waiting = []
    if waiting:
        raise ValueError("its pictures have no time stamps")
