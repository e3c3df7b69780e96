"""The frames of a video by number, from its packets: what is needed to read any of them without a full decode."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av.error

from keep.data.decode import VideoFile, decode, frame_rate, reason, to_rgb, video_stream
from keep.utils.errors import UserError


@dataclass(frozen=True)
class VideoInfo:
    """Size and rate of a video.

    Attributes:
        frames: number of frames that :func:`keep.data.video_io.read_video` returns.
        height: of a displayed frame (rotation applied), in pixels.
        width: likewise.
        fps: average frame rate.
    """

    frames: int
    height: int
    width: int
    fps: Fraction


@dataclass(frozen=True)
class Timeline:
    """The frames of a video in display order, found from its packets once.

    Attributes:
        info: size and rate.
        pts: time stamp of each frame, sorted. None for containers without usable time stamps (AVI), whose frames are
            counted from the start.
        keys: time stamps of the key frames, sorted; None likewise.
    """

    info: VideoInfo
    pts: Sequence[int] | None
    keys: Sequence[int] | None

    def dump(self) -> dict[str, Any]:
        """Plain JSON data; evenly spaced time stamps as ``[first, step]``."""
        i, pts = self.info, self.pts
        even = {"even": [pts.start, pts.step]} if isinstance(pts, range) else {"pts": pts and list(pts)}
        size = {"frames": i.frames, "height": i.height, "width": i.width}
        return {**size, "fps": str(i.fps), **even, "keys": self.keys and list(self.keys)}

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> "Timeline":
        """The inverse of :meth:`dump`."""
        info = VideoInfo(data["frames"], data["height"], data["width"], Fraction(data["fps"]))
        pts, keys = data.get("pts"), data["keys"]
        if "even" in data:
            first, step = data["even"]
            pts = range(first, first + step * info.frames, step)
        return cls(info, pts if pts is None else _compact(pts), keys if keys is None else tuple(keys))


def timeline_of(path: str | Path) -> Timeline:
    """The timeline of a video file, cached until the file changes.

    Raises:
        UserError: the file is missing, not a video, has no video stream, or is truncated.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if not path.is_file():
        raise UserError(f"{path}: is a folder, not a video file")
    stat = path.stat()
    return _cached(str(path), stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1024)
def _cached(path: str, modified_ns: int, size: int) -> Timeline:
    """Time and size are part of the key, so that a rewritten file is read again."""
    return read_timeline(path)


def read_timeline(path: str | Path, content: bytes | None = None) -> Timeline:
    """The timeline, from the packets of the file at ``path`` or of its ``content``; one frame is decoded.

    Raises:
        UserError: as :func:`timeline_of`.
    """
    file = VideoFile(path, content)
    with file.open() as container:
        stream: Any = video_stream(container, path)
        promised, container_format = stream.frames, container.format.name
        packets = []
        try:
            packets.extend((p.pts, p.is_keyframe, p.is_discard) for p in container.demux(stream) if p.size)
        except IndexError:  # PyAV fails at the end of a file in which further streams appeared
            pass
        except av.error.FFmpegError as error:
            raise UserError(f"{path}: cannot be read: {reason(error)}") from error
        fps = frame_rate(stream)
    if len(packets) < promised and container_format != "avi":  # an AVI header counts repeated frames too
        raise UserError(f"{path}: truncated: its header names {promised} frames, the file holds {len(packets)}")
    height, width = _frame_size(file)

    stamps = [pts for pts, _, discard in packets if not discard]
    keys = [pts for pts, key, _ in packets if key]
    usable = bool(keys) and None not in {pts for pts, _, _ in packets} and len(set(stamps)) == len(stamps)
    if not usable or container_format == "avi":  # AVI has no time stamps: FFmpeg's guesses are wrong for B-frames
        count = sum(1 for _ in decode(file))
        return Timeline(VideoInfo(count, height, width, fps), None, None)
    # A stream cut inside a group of pictures starts with frames that cannot be decoded.
    pts = _compact(sorted(s for s in stamps if s >= min(keys)))
    return Timeline(VideoInfo(len(pts), height, width, fps), pts, tuple(sorted(keys)))


def _compact(pts: Sequence[int]) -> Sequence[int]:
    """Evenly spaced time stamps as a range: the timelines of a whole data set stay in memory."""
    if len(pts) > 1:
        even = range(pts[0], pts[-1] + 1, pts[1] - pts[0])
        if len(even) == len(pts) and all(a == b for a, b in zip(even, pts, strict=True)):
            return even
    return tuple(pts)


def _frame_size(file: VideoFile) -> tuple[int, int]:
    """(height, width) of the first frame, rotation applied."""
    for frame in decode(file):
        height, width, _ = to_rgb(frame).shape
        return height, width
    raise UserError(f"{file.path}: truncated or damaged: no frame can be decoded")
