"""Decoding a video file with PyAV, in display order.

Decoding uses one thread: the parallelism is in the loader's workers.
"""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.stream import Disposition

from keep.utils.errors import UserError

FASTEST = 300  # frames a second; a higher average is doubted


@dataclass(frozen=True)
class VideoFile:
    """A video in a file, or in memory.

    Attributes:
        path: of the file; with ``content`` only a name for messages.
        content: the bytes of a video in memory.
    """

    path: str | Path
    content: bytes | None = None

    def open(self) -> Any:
        """Its PyAV container.

        Raises:
            UserError: not a video, or a truncated one.
        """
        try:
            return av.open(ffmpeg_path(self.path) if self.content is None else io.BytesIO(self.content))
        except (av.error.FFmpegError, OSError) as error:
            raise UserError(f"{self.path}: not a video file, or a truncated one: {reason(error)}") from error


def decode(file: VideoFile, seek: int | None = None, wanted: int | None = None) -> Iterator[Any]:
    """PyAV frames in display order, from the start or from the key frame at time stamp ``seek``.

    Frames before the time stamp ``wanted`` that no other frame refers to are skipped.

    Raises:
        UserError: the file cannot be opened or decoded.
    """
    with file.open() as container:
        stream: Any = video_stream(container, file.path)
        context = stream.codec_context
        context.thread_count = 1
        try:
            if seek is not None:
                container.seek(seek, stream=stream)
            for packet in container.demux(stream):
                early = wanted is not None and packet.pts is not None and packet.pts < wanted
                context.skip_frame = "NONREF" if early and not packet.is_keyframe else "DEFAULT"
                yield from packet.decode()
        except IndexError:  # PyAV fails at the end of a file in which further streams appeared
            return
        except av.error.FFmpegError as error:
            raise UserError(f"{file.path}: truncated or damaged: {reason(error)}") from error


def video_stream(container: Any, path: str | Path) -> Any:
    """The first video stream that is not a cover picture.

    Raises:
        UserError: the file has none, or FFmpeg has no decoder for it.
    """
    cover = Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & cover]
    if not streams:
        raise UserError(f"{path}: has no video stream")
    if streams[0].codec_context is None:
        raise UserError(f"{path}: the FFmpeg that PyAV uses has no decoder for its video codec")
    return streams[0]


def frame_rate(stream: Any) -> Fraction:
    """Frames a second of a video stream: the average, or what FFmpeg guesses where that is none.

    Of raw DV the average is the unit of its time stamps.
    """
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    if rate > FASTEST and stream.guessed_rate:
        rate = stream.guessed_rate
    return Fraction(rate.numerator, rate.denominator)


def to_rgb(frame: Any, turn: tuple[int, bool] | None = None) -> np.ndarray:
    """A decoded PyAV frame as uint8 (H, W, 3) RGB, turned and mirrored as its display matrix says.

    Args:
        turn: the :func:`orientation` of the video, where it is known.
    """
    return upright(frame.to_ndarray(format="rgb24", threads=1), *(turn or orientation(frame)))


def orientation(frame: Any) -> tuple[int, bool]:
    """How a PyAV frame is shown: (degrees to turn it counter-clockwise, whether it is then mirrored left to right).

    Ask once a video: PyAV's side data and its frame refer to each other, so the frame's memory stays until Python's
    garbage collector finds them.
    """
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            matrix = np.frombuffer(bytes(data), np.int32, 9).astype(float)
            mirrored = bool(matrix[0] * matrix[4] < matrix[1] * matrix[3])
            x = -matrix[0] if mirrored else matrix[0]
            return round(math.degrees(math.atan2(-matrix[1], x))), mirrored
    return 0, False


def upright(image: np.ndarray, rotation: int, mirrored: bool) -> np.ndarray:
    """A stored (H, W, …) picture as it is shown, see :func:`orientation`. Turns to the closest quarter."""
    turns = round(rotation / 90) % 4
    image = np.rot90(image, turns) if turns else image
    return np.ascontiguousarray(image[:, ::-1] if mirrored else image)


def as_stored(image: np.ndarray, rotation: int, mirrored: bool) -> np.ndarray:
    """The inverse of :func:`upright`."""
    image = image[:, ::-1] if mirrored else image
    turns = round(rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, -turns) if turns else image)


def ffmpeg_path(path: str | Path) -> str:
    """The absolute path: FFmpeg would read a relative ``12:30.mp4`` as a URL."""
    return str(Path(path).absolute())


def reason(error: Exception) -> str:
    """FFmpeg's message in an error."""
    return getattr(error, "strerror", None) or str(error)
