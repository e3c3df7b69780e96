"""Reads a video file as a stream of timed frames."""

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np

from keep.data.decode import ffmpeg_path
from keep.data.mux.aspect import aspect_of
from keep.data.mux.colours import Colours, to_rgb
from keep.utils.errors import UserError


@dataclass(frozen=True)
class TimedFrame:
    """A decoded frame.

    Attributes:
        index: number of the frame among those that can be decoded, from 0.
        image: uint8 (H, W, 3) RGB, upright.
        pts: display time, in units of the source's ``time_base``; strictly increasing.
        duration: display duration, in the same units.
        name: for a frame from a folder: the file's name without suffix.
    """

    index: int
    image: np.ndarray
    pts: int
    duration: int
    name: str = ""


class VideoSource:
    """The frames of a video file. Every iteration decodes the file again.

    Attributes:
        path: the file.
        height: height of the upright frames (rotation applied), in pixels.
        width: width of the upright frames, in pixels.
        fps: average frame rate.
        time_base: unit of frame times, in seconds.
        start: time of the first packet of any stream, in seconds; frame times are relative to it.
        rotation: rotation tag, in degrees counter-clockwise.
        colours: colour tags.
        pixel_aspect: width of a stored pixel over its height; None if the file does not specify it.
        display_aspect: width over height of a pixel of the upright frames; 1 if the file does not specify it.
        tags: tags of the file.
        streams: number of streams in the file.
        expected: number of frames according to the header; None if it is missing.
        lost: after an iteration: number of frames that could not be decoded.
        damaged: after an iteration: number of frames decoded from damaged data.

    Args:
        path: the video file.

    Raises:
        UserError: no such file, not a video, or no frame can be decoded.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(f"{path}: " + ("is a folder, not a video" if self.path.is_dir() else "no such file"))
        self.lost = self.damaged = 0
        with open_video(self.path) as container:
            stream: Any = video_stream(container, self.path)
            rate = stream.average_rate or stream.guessed_rate or Fraction(25)
            self.fps = Fraction(rate.numerator, rate.denominator)
            self.start = Fraction(container.start_time or 0, av.time_base)
            self.tags: dict[str, str] = dict(container.metadata)
            self.streams = len(container.streams)
            # AVI has no time stamps, and FFmpeg's guesses are wrong with B-frames. So frames are counted.
            self._counted = container.format.name == "avi" or stream.time_base is None
            self.time_base = 1 / self.fps if self._counted else Fraction(stream.time_base or 1)
            seconds = _duration(container, stream)
            self.expected = stream.frames or (None if seconds is None else round(seconds * self.fps))
            aspect = stream.sample_aspect_ratio
            codec = stream.codec_context.name
            frames = self._decode(container, stream)
            first = next(frames, None)
            frames.close()
        if first is None:
            raise UserError(f"{path}: truncated or damaged: no frame can be decoded")
        self.height, self.width = to_rgb(first).shape[:2]
        self.rotation = first.rotation
        if not aspect and codec == "ffv1":
            aspect = aspect_of(first)
        self.pixel_aspect = aspect
        if aspect and round(self.rotation / 90) % 2:
            aspect = 1 / aspect
        self.display_aspect = float(aspect or 1)
        self.colours = Colours(first.colorspace, first.color_primaries, first.color_trc, first.color_range)

    def __iter__(self) -> Iterator[TimedFrame]:
        last, index = None, 0
        shift = round(self.start / self.time_base)
        usual = max(1, round(1 / self.fps / self.time_base))
        with open_video(self.path) as container:
            for frame in self._decode(container, video_stream(container, self.path)):
                if self._counted:
                    pts = index
                else:
                    pts = frame.pts - shift if frame.pts is not None else 0 if last is None else last + usual
                if last is not None and pts <= last:
                    pts = last + 1
                image = to_rgb(frame)
                if image.shape[:2] != (self.height, self.width):  # the frame size changes within the stream
                    image = cv2.resize(image, (self.width, self.height), interpolation=cv2.INTER_AREA)
                yield TimedFrame(index, image, pts, frame.duration if frame.duration and not self._counted else usual)
                last, index = pts, index + 1

    def _decode(self, container: Any, stream: Any) -> Generator[Any, None, None]:
        """PyAV frames in display order. Frames that cannot be decoded are skipped and counted."""
        promised, packets, discarded, given, bad = stream.frames, 0, 0, 0, 0
        if container.format.name == "avi":  # its header also counts repeated frames
            promised = 0
        seconds = None if promised else _duration(container, stream)
        self.lost = self.damaged = 0
        stream.thread_type = "AUTO"
        demuxed = container.demux(stream)
        broken, begin, end = False, None, 0
        while True:
            try:
                packet = next(demuxed, None)
            except av.error.FFmpegError:
                broken, packet = True, None
            if packet is not None and packet.size:
                packets += 1
                discarded += packet.is_discard
                broken |= packet.is_corrupt
            try:
                frames = (packet.decode() if packet.size else []) if packet is not None else stream.decode(None)
            except av.error.EOFError:
                frames = []
            except av.error.FFmpegError:
                broken, frames = True, []
            for frame in frames:
                given += 1
                bad += frame.is_corrupt
                end = frame.pts if frame.pts is not None else end
                begin = end if begin is None else begin
                yield frame
            if packet is None:
                break
        missing = max(promised - packets, 0)
        if seconds is not None and begin is not None:
            # Estimate: missing frames had the frame rate of the decoded ones. The tolerance is for inexact durations.
            pace = (given - 1) / ((end - begin) * stream.time_base) if end > begin else self.fps
            tail = round((seconds - (end * stream.time_base - self.start)) * pace) - 1
            if tail > max(2, 0.5 * pace):
                missing, broken = tail, True
        self.lost = missing + (max(packets - discarded - given, 0) if broken or missing else 0)
        self.damaged = bad


def open_video(path: Path) -> Any:
    """The PyAV container of a video file.

    Raises:
        UserError: not a video file.
    """
    try:
        container = av.open(ffmpeg_path(path), metadata_errors="replace")
    except (av.error.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: not a video file, or a truncated one: {reason}") from error
    name = container.format.name
    if name in ("image2", "tty") or name.endswith("_pipe"):  # FFmpeg opens images and text as videos
        container.close()
        what = "text" if name == "tty" else "an image; put images into a folder of frames"
        raise UserError(f"{path}: not a video file but {what}")
    return container


def video_stream(container: Any, path: Path) -> Any:
    """The video stream of a container, not its cover art.

    Raises:
        UserError: there is none.
    """
    from av.stream import Disposition

    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise UserError(f"{path}: has no video stream")
    return streams[0]


def _duration(container: Any, stream: Any) -> Fraction | None:
    """Duration of the video stream according to the header, in seconds; None if the header has none for it."""
    if stream.duration is not None and stream.time_base is not None:
        return stream.duration * stream.time_base
    if match := re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", "")):
        hours, minutes, seconds = (Fraction(group) for group in match.groups())
        return 3600 * hours + 60 * minutes + seconds
    if container.duration and len(container.streams) == 1:
        return Fraction(container.duration, av.time_base)
    return None
