"""Reads a video file as a stream of timed frames."""

import re
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np

from keep.data.decode import ffmpeg_path, frame_rate, orientation
from keep.data.mux.aspect import aspect_of
from keep.data.mux.colours import Colours, to_deep, to_rgb
from keep.data.mux.fields import Deinterlace, is_interlaced, progressive
from keep.data.mux.hdr import from_display, light_of, to_display
from keep.data.mux.layout import layout_of
from keep.data.mux.reading import Damaged, Packets, Pictures
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
        deep: returns the frame as stored where ``image`` is less: uint8 or uint16 (H, W, 3), with alpha (H, W, 4).
        fields: where fields are kept: the interlaced PyAV frame.
    """

    index: int
    image: np.ndarray
    pts: int
    duration: int
    name: str = ""
    deep: Callable[[], np.ndarray] | None = None
    fields: Any = None


class VideoSource:
    """The frames of a video file. Every iteration decodes the file again.

    Attributes:
        path: the file.
        height: height of the upright frames (rotation applied), in pixels.
        width: width of the upright frames, in pixels.
        fps: average frame rate.
        time_base: unit of frame times, in seconds.
        start: time of the first packet of any stream, in seconds; frame times are relative to it.
        rotation: turn of the display matrix, in degrees counter-clockwise.
        mirrored: whether the display matrix then mirrors left and right.
        colours: colour tags.
        pixel_aspect: width of a stored pixel over its height; None if the file does not specify it.
        display_aspect: width over height of a pixel of the upright frames; 1 if the file does not specify it.
        layout: what the stored pixels hold; images of HDR are tone-mapped (:mod:`keep.data.mux.hdr`).
        light: mastering display and light level of HDR, as options of x265.
        interlaced: the file has interlaced frames.
        tags: tags of the file.
        streams: number of streams in the file.
        expected: number of frames according to the header; None if it is missing, see :meth:`count`.
        jumps: after an iteration: number of times at which the time stamps jump, and are carried on.
        resized: after an iteration: (width, height) → frames scaled from it to the first size.
        lost: after an iteration: number of frames that could not be decoded.
        damaged: after an iteration: number of frames decoded from damaged data.

    Args:
        path: the video file.
        deinterlace: ``auto``: interlaced frames become progressive ones; ``off``: fields are not looked for; ``keep``:
            images are progressive, but the frames as stored stay interlaced.
        double_rate: deinterlacing gives a frame for each field.

    Raises:
        UserError: no such file, not a video, or no frame can be decoded.
    """

    def __init__(self, path: str | Path, deinterlace: Deinterlace = "off", double_rate: bool = False) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(f"{path}: " + ("is a folder, not a video" if self.path.is_dir() else "no such file"))
        self.lost = self.damaged = self.jumps = 0
        self.resized: Counter[tuple[int, int]] = Counter()
        self._careful = False  # damaged data was met
        with open_video(self.path) as container:
            stream: Any = video_stream(container, self.path)
            self.fps = frame_rate(stream)
            self.start = Fraction(container.start_time or 0, av.time_base)
            self.tags: dict[str, str] = dict(container.metadata)
            self.streams = len(container.streams)
            self.time_base = Fraction(stream.time_base or 1 / self.fps)
            self._stamps, self._step = self.time_base, 1 / self.fps  # of the file's frames, before any doubling
            self.expected = stream.frames or None
            aspect = stream.sample_aspect_ratio
            codec = stream.codec_context.name
            frames = self._decode(container, stream)
            first, _ = next(frames, (None, None))
            looked_for = first is not None and deinterlace != "off"
            self.interlaced = looked_for and is_interlaced(chain([first], (frame for frame, _ in frames)))
            frames.close()
        if first is None:
            raise UserError(f"{path}: truncated or damaged: no frame can be decoded")
        self.rotation, self.mirrored = self._turn = orientation(first)
        self.height, self.width = to_rgb(first, self._turn).shape[:2]
        if not aspect and codec == "ffv1":
            aspect = aspect_of(first)
        self.pixel_aspect = aspect
        if aspect and round(self.rotation / 90) % 2:
            aspect = 1 / aspect
        self.display_aspect = float(aspect or 1)
        self.colours = Colours(first.colorspace, first.color_primaries, first.color_trc, first.color_range)
        self.layout = layout_of(first)
        self.light = light_of(first) if self.layout.transfer != "sdr" else ""
        self.keeps_fields = self.interlaced and deinterlace == "keep"
        self.doubled = self.interlaced and double_rate and not self.keeps_fields
        if self.doubled:
            self.fps, self.time_base = 2 * self.fps, self.time_base / 2
            self.expected = self.expected and 2 * self.expected

    def __iter__(self) -> Iterator[TimedFrame]:
        self.resized.clear()
        usual = max(1, round(1 / self.fps / self.time_base))
        with open_video(self.path) as container:
            timed = self._timed(container, usual)
            frames = (
                progressive(timed, self._stamps, self.doubled) if self.interlaced else ((f, t, f) for f, t in timed)
            )
            for index, (frame, pts, given) in enumerate(frames):
                image = self._image(frame)
                if image.shape[:2] != (self.height, self.width):
                    self.resized[image.shape[1::-1]] += 1
                    image = self._fit(image)
                fields = given if self.keeps_fields else None
                kept = fields or frame
                plain = self.layout.plain and fields is None
                deep = None if plain else partial(self._deep, kept)
                yield TimedFrame(index, image, pts, given.duration or usual, deep=deep, fields=fields)

    def count(self) -> int:
        """About how many frames an iteration gives: as the header says, or as many as there are packets."""
        if self.expected is None:
            with open_video(self.path) as container:
                number = video_stream(container, self.path).index
                packets = sum(p.stream_index == number and not p.is_discard for p in Packets(container))
            self.expected = (1 + self.doubled) * packets
        return self.expected

    def from_display(self, image: np.ndarray) -> np.ndarray:
        """uint8 RGB (h, w, 3) as displayed → the values in which this video stores it."""
        if self.layout.transfer != "sdr":
            return from_display(image, self.layout.transfer)
        return image if self.layout.bits == 8 else image.astype(np.uint16) * 257

    def _timed(self, container: Any, usual: int) -> Iterator[tuple[Any, int]]:
        """(PyAV frame, its time), ascending."""
        last, shift = None, round(self.start / self._stamps)
        for frame, time in self._decode(container, video_stream(container, self.path)):
            pts = time - shift if time is not None else 0 if last is None else last + usual
            last = pts if last is None else max(pts, last + 1)
            yield frame, last

    def _image(self, frame: Any) -> np.ndarray:
        if self.layout.transfer == "sdr":
            return to_rgb(frame, self._turn)
        return to_display(to_deep(frame, self.layout, self._turn)[..., :3], self.layout.transfer)

    def _deep(self, frame: Any) -> np.ndarray:
        return self._fit(to_deep(frame, self.layout, self._turn))

    def _fit(self, image: np.ndarray) -> np.ndarray:
        if image.shape[:2] == (self.height, self.width):
            return image
        return cv2.resize(image, (self.width, self.height), interpolation=cv2.INTER_AREA)

    def _decode(self, container: Any, stream: Any) -> Generator[tuple[Any, int | None], None, None]:
        """(PyAV frame, time) in display order. Frames that cannot be decoded are skipped and counted."""
        self.lost = self.damaged = self.jumps = 0
        pictures = Pictures(self.path, container, stream, self._step, threads=not self._careful)
        try:
            yield from pictures
        except Damaged:
            self._careful = True
            with open_video(self.path) as again:
                yield from islice(self._decode(again, video_stream(again, self.path)), pictures.given, None)
            return
        seconds, begin, behind = _duration(container, stream), self.start, None
        if pictures.begin is not None:
            begin = pictures.begin * self._stamps
        if seconds is not None and pictures.end is not None:
            behind = float(seconds - (pictures.end * self._stamps - self.start))
        self.lost = pictures.lost(stream.frames, float(begin), float(begin - self.start), behind)
        self.jumps = pictures.jumps
        self.damaged = pictures.damaged or int(pictures.unfinished and not self.lost)


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
        UserError: there is none, or FFmpeg has no decoder for it.
    """
    from av.stream import Disposition

    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise UserError(f"{path}: has no video stream")
    if streams[0].codec_context is None:
        raise UserError(f"{path}: the FFmpeg that PyAV uses has no decoder for its video codec")
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
