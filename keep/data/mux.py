"""A video as a stream of frames with their times, and its twin written with everything else of the file copied over.

One frame is in memory at a time. All frames are uint8 (H, W, 3) RGB, upright (rotation applied). Frame times, rotation,
colour tags, pixel shape, audio, subtitles, chapters and metadata of the source go into the written file.
:mod:`keep.data.video_io` reads by frame number and refuses damaged files; here what can be decoded is given, and what
cannot is counted.
"""

import os
import re
import shutil
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import av.error
import cv2
import numpy as np
from av.video.reformatter import Interpolation

from keep.degradation.codec import pad_to_even, require_encoder
from keep.errors import UserError

Codec = Literal["h264", "h265", "ffv1"]
ENCODERS: dict[str, tuple[str, str]] = {
    "h264": ("libx264", "yuv420p"), "h265": ("libx265", "yuv420p"), "ffv1": ("ffv1", "bgr0"),
}  # fmt: skip
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
# FFmpeg's numbers for colour tags (ITU-T H.273); the YUV matrices that its converter knows.
UNSPECIFIED, BT709, SMPTE170M, RGB = 2, 1, 6, 0
FULL = 2  # of ranges
MATRICES = frozenset({1, 4, 5, 6, 7, 9})
# The converter's defaults are fast but make every picture about one level darker, and full-range grey green.
EXACT = int(
    Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)
MP4 = frozenset({".mp4", ".mov", ".m4v"})
IN_MP4 = frozenset({"h264", "hevc", "av1", "vp9", "mpeg4"})  # FFmpeg would write others that few players read
RATES = (0.01, 1000)  # frames a second


@dataclass(frozen=True)
class TimedFrame:
    """A decoded frame.

    Attributes:
        index: its number, from 0, among the frames that can be decoded.
        image: uint8 (H, W, 3) RGB, upright.
        pts: when it is shown, in units of the source's ``time_base``; always later than the frame before.
        duration: for how long, in the same units.
        name: the file's name without suffix, of a frame from a folder.
    """

    index: int
    image: np.ndarray
    pts: int
    duration: int
    name: str = ""


@dataclass(frozen=True)
class Colours:
    """FFmpeg's colour tags of a video: YUV matrix, primaries, transfer, range."""

    colorspace: int = UNSPECIFIED
    color_primaries: int = UNSPECIFIED
    color_trc: int = UNSPECIFIED
    color_range: int = 0


class VideoSource:
    """The frames of a video file, decoded again at every iteration.

    Attributes:
        path: the file.
        height: of a frame as it is shown (rotation applied), in pixels.
        width: likewise.
        fps: average frame rate.
        time_base: unit of the frames' times, in seconds.
        start: time of the file's first packet of any stream, in seconds; frame times count from it.
        rotation: of the file's tag, in degrees counter-clockwise.
        colours: colour tags.
        pixel_aspect: width of a stored pixel over its height, None where the file does not say.
        display_aspect: the same of the upright frames' pixels; 1 where the file does not say.
        expected: number of frames as far as the header tells, None where it does not.
        lost: after an iteration: frames that the file should hold and that could not be decoded.
        damaged: after an iteration: frames that were decoded, but from damaged data.

    Args:
        path: the video file.

    Raises:
        UserError: no such file, not a video, or not one frame can be decoded.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(f"{path}: " + ("is a folder, not a video" if self.path.is_dir() else "no such file"))
        self.lost = self.damaged = 0
        with _open(self.path) as container:
            stream: Any = _video_stream(container, self.path)
            rate = stream.average_rate or stream.guessed_rate or Fraction(25)
            self.fps = Fraction(rate.numerator, rate.denominator)
            self.start = Fraction(container.start_time or 0, av.time_base)
            # AVI has no time stamps, and FFmpeg's guesses are wrong for B-frames: frames are counted.
            self._counted = container.format.name == "avi" or stream.time_base is None
            self.time_base = 1 / self.fps if self._counted else Fraction(stream.time_base or 1)
            self.expected = stream.frames or _frames_by_duration(container, stream, self.fps)
            self.pixel_aspect = aspect = stream.sample_aspect_ratio
            frames = self._decode(container, stream)
            first = next(frames, None)
            frames.close()
        if first is None:
            raise UserError(f"{path}: truncated or damaged: not one frame can be decoded")
        self.height, self.width = _to_rgb(first).shape[:2]
        self.rotation = first.rotation
        if aspect and round(self.rotation / 90) % 2:
            aspect = 1 / aspect
        self.display_aspect = float(aspect or 1)
        self.colours = Colours(first.colorspace, first.color_primaries, first.color_trc, first.color_range)

    def __iter__(self) -> Iterator[TimedFrame]:
        last, index = None, 0
        shift = round(self.start / self.time_base)
        usual = max(1, round(1 / self.fps / self.time_base))
        with _open(self.path) as container:
            for frame in self._decode(container, _video_stream(container, self.path)):
                if self._counted:
                    pts = index
                else:
                    pts = frame.pts - shift if frame.pts is not None else 0 if last is None else last + usual
                if last is not None and pts <= last:
                    pts = last + 1
                image = _to_rgb(frame)
                if image.shape[:2] != (self.height, self.width):  # the size changes within the stream
                    image = cv2.resize(image, (self.width, self.height), interpolation=cv2.INTER_AREA)
                yield TimedFrame(index, image, pts, frame.duration if frame.duration and not self._counted else usual)
                last, index = pts, index + 1

    def _decode(self, container: Any, stream: Any) -> Generator[Any, None, None]:
        """PyAV frames in display order; what cannot be decoded is passed over and counted."""
        promised, packets, discarded, given, bad = stream.frames, 0, 0, 0, 0
        if container.format.name == "avi":  # its header counts repeated frames too
            promised = 0
        by_duration = 0 if promised else _frames_by_duration(container, stream, self.fps) or 0
        self.lost = self.damaged = 0
        stream.thread_type = "AUTO"
        demuxed = container.demux(stream)
        broken, end = False, 0
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
                yield frame
            if packet is None:
                break
        missing = max(promised - packets, 0)
        tail = by_duration - round((end * stream.time_base - self.start) * self.fps) - 1 if by_duration else 0
        if not missing and tail > max(2, 0.5 * self.fps):  # a header's duration is not exact
            missing, broken = tail, True
        self.lost = missing + (max(packets - discarded - given, 0) if broken or missing else 0)
        self.damaged = bad


class FrameFolder:
    """The images of a folder as a video, in the natural order of their names. Attributes as :class:`VideoSource`.

    Args:
        path: the folder.
        fps: the frame rate they are meant for.

    Raises:
        UserError: no such folder, no image that can be read in it, or an impossible frame rate.
    """

    rotation, colours, pixel_aspect, display_aspect, start = 0, Colours(), None, 1.0, Fraction(0)

    def __init__(self, path: str | Path, fps: Fraction | float = 25) -> None:
        self.path = Path(path)
        self.files = list_images(self.path)
        if not self.files:
            raise UserError(f"{path}: holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
        if not RATES[0] <= fps <= RATES[1]:
            raise UserError(f"{path}: the frame rate must be from {RATES[0]:g} to {RATES[1]:g}, not {fps:g}")
        self.fps = Fraction(fps).limit_denominator(100_000)
        self.time_base = 1 / self.fps
        self.expected, self.lost, self.damaged = len(self.files), 0, 0
        first = next((image for image in map(_read_image, self.files) if image is not None), None)
        if first is None:
            raise UserError(f"{path}: none of its images can be read")
        self.height, self.width = first.shape[:2]

    def __iter__(self) -> Iterator[TimedFrame]:
        self.lost = index = 0
        for file in self.files:
            image = _read_image(file)
            if image is None:
                self.lost += 1
                continue
            if image.shape[:2] != (self.height, self.width):
                raise UserError(f"{file}: is {image.shape[1]}×{image.shape[0]}, the others {self.width}×{self.height}")
            yield TimedFrame(index, image, index, 1, file.stem)
            index += 1


Source = VideoSource | FrameFolder


def list_images(folder: Path) -> list[Path]:
    """The images of a folder; ``frame_2`` comes before ``frame_10``."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    images = [f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith(".")]
    return sorted(images, key=lambda f: [int(s) if s.isdigit() else s.lower() for s in re.split(r"(\d+)", f.name)])


class VideoWriter:
    """Writes a video whose frame times, tags and other streams are those of ``source``.

    Used as a context manager; the file appears under its name, whole, when the block ends without an error.

    Args:
        path: where; the suffix picks the container.
        source: what the frames were made from.
        size: (height, width) of the frames; an odd side is padded to even where the codec needs it.
        codec: ``h264``, ``h265`` or ``ffv1`` (lossless RGB).
        crf: constant rate factor of H.264 and H.265: lower is better and larger.
        preset: speed against size of H.264 and H.265.

    Attributes:
        left_out: what of the source does not fit into this container, in words.

    Raises:
        UserError: an encoder that is not there, or a container that does not take it.
    """

    def __init__(
        self,
        path: str | Path,
        source: Source,
        size: tuple[int, int],
        codec: Codec = "h264",
        crf: int = 18,
        preset: str = "medium",
    ) -> None:
        self.path, self.source = Path(path), source
        self.left_out: list[str] = []
        self._encoder, self._pix_fmt = ENCODERS[codec]
        require_encoder(self._encoder)
        if not self.path.parent.is_dir():
            raise UserError(f"{self.path}: cannot write: there is no folder {self.path.parent}")
        self._temporary = claim(self.path)
        self._turns = round(source.rotation / 90) % 4
        self._pending: Any = None  # the next packet to copy, with its time in seconds
        self._first_dts = self._last_end = None
        self._start = 0
        self._durations: dict[int, int] = {}
        self._inputs = None
        try:
            self._output = av.open(str(self._temporary), "w", options=_container_options(self.path.suffix))
            self._stream = self._add_video(size, crf, preset)
            self._copied, self._others = self._add_others()
        except (ValueError, av.error.FFmpegError) as error:
            self._discard()
            raise UserError(f"{self.path}: cannot write {codec} into a {self.path.suffix} file: {error}") from error
        except BaseException:
            self._discard()
            raise

    def check(self) -> None:
        """Try whether this file can be written, header and all; nothing is left of it.

        Raises:
            UserError: it cannot.
        """
        try:
            self._output.start_encoding()
        except (ValueError, av.error.FFmpegError) as error:
            raise self._failed(error) from error
        finally:
            self._discard()

    def __enter__(self) -> "VideoWriter":
        return self

    def write(self, image: np.ndarray, frame: TimedFrame) -> None:
        """Append ``image``, uint8 (H, W, 3) RGB and upright, shown when ``frame`` is."""
        if self._turns:
            image = np.rot90(image, -self._turns)
        if "420" in self._pix_fmt:
            image = pad_to_even(image)
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        if self._pix_fmt.startswith("yuv"):
            colours = self._stream.codec_context
            matrix = colours.colorspace if colours.colorspace in MATRICES else SMPTE170M
            picture = _to_yuv(picture, matrix, colours.color_range == FULL)
            # From the stream's own tags; the converter leaves RGB's.
            picture.colorspace, picture.color_range = colours.colorspace, colours.color_range
        picture.pts, picture.time_base = frame.pts, self.source.time_base
        self._durations[frame.pts] = frame.duration
        if self._last_end is None:
            self._start = frame.pts
        self._last_end = frame.pts + frame.duration
        try:
            self._copy_until(float(frame.pts * self.source.time_base))
            for packet in self._stream.encode(picture):
                self._mux(packet)
        except av.error.FFmpegError as error:
            raise self._failed(error) from error

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is not None:
            self._discard()
            return
        try:
            if self._last_end is None:
                raise UserError(f"{self.path}: there are no frames to write")
            packets = self._stream.encode(None)
            for packet in packets:
                packet.dts = min(packet.dts, packet.pts)  # x265 gives later ones where it got only one or two frames
            for packet in packets[:-1]:
                self._mux(packet)
            for packet in packets[-1:]:
                first = self._first_dts if self._first_dts is not None else packet.dts
                # MP4 takes a track's length from the last packet in decoding order.
                self._mux(packet, self._last_end - self._start - (packet.dts - first))
            self._copy_until(float("inf"))
            self._output.close()
            self._close_input()
            self._temporary.replace(self.path)
        except av.error.FFmpegError as error:
            raise self._failed(error) from error
        finally:
            self._discard()

    def _failed(self, error: Any) -> UserError:
        return UserError(f"{self.path}: cannot be written: {getattr(error, 'strerror', None) or error}")

    def _mux(self, packet: Any, duration: int | None = None) -> None:
        if self._first_dts is None:
            self._first_dts = packet.dts
        own = self._durations.pop(packet.pts, 0)
        packet.duration = own if duration is None else max(duration, 1)
        self._output.mux(packet)

    def _add_video(self, size: tuple[int, int], crf: int, preset: str) -> Any:
        source = self.source
        options = {} if self._encoder == "ffv1" else {"crf": str(crf), "preset": preset}
        if self._encoder == "libx265":
            options["x265-params"] = "log-level=error"
        stream: Any = self._output.add_stream(self._encoder, rate=source.fps, options=options)
        height, width = size[::-1] if self._turns % 2 else size
        even = 2 if "420" in self._pix_fmt else 1
        stream.height, stream.width = -(-height // even) * even, -(-width // even) * even
        stream.pix_fmt = self._pix_fmt
        context = stream.codec_context
        context.time_base = source.time_base
        if self._encoder == "libx265" and self.path.suffix.lower() in MP4:
            context.codec_tag = "hvc1"  # the tag that Apple's players want
        if source.pixel_aspect:
            context.sample_aspect_ratio = source.pixel_aspect
            if self._encoder == "ffv1" and source.pixel_aspect != 1:  # neither FFV1 nor PyAV's stream takes it
                aspect = f"{source.pixel_aspect.numerator}:{source.pixel_aspect.denominator}"
                self.left_out.append(f"the pixel shape {aspect}, which FFV1 does not keep")
        tags = source.colours
        if self._pix_fmt.startswith("yuv"):
            context.colorspace = BT709 if tags.colorspace == RGB else tags.colorspace
            context.color_range = tags.color_range
        context.color_primaries, context.color_trc = tags.color_primaries, tags.color_trc
        if self._turns:
            stream.set_display_rotation(source.rotation)
        return stream

    def _add_others(self) -> tuple[dict[int, Any], Iterator[Any]]:
        """Streams of the output by the index of those they copy, and the packets for them."""
        if not isinstance(self.source, VideoSource):
            return {}, iter(())
        self._inputs = inputs = _open(self.source.path)
        video = _video_stream(inputs, self.source.path)
        copied = _add_copies(self._output, self._stream, inputs, video, self.path.suffix, self.left_out)
        if not copied:
            return {}, iter(())
        return copied, inputs.demux([inputs.streams[i] for i in copied])

    def _copy_until(self, seconds: float) -> None:
        """Copy the packets of the other streams up to this time of the output."""
        while True:
            packet = self._pending or self._next_other()
            if packet is None:
                return
            if packet.dts * packet.time_base > seconds:
                self._pending = packet
                return
            self._pending = None
            packet.stream = self._copied[packet.stream_index]
            self._output.mux(packet)

    def _next_other(self) -> Any:
        while True:
            try:
                packet = next(self._others, None)
            except av.error.FFmpegError:  # truncated: what came before is copied
                self._others = iter(())
                return None
            if packet is None:
                return None
            if packet.size and packet.dts is not None:
                shift = round(self.source.start / packet.time_base)
                packet.dts -= shift
                packet.pts = packet.dts if packet.pts is None else packet.pts - shift
                return packet

    def _close_input(self) -> None:
        if self._inputs is not None:
            self._inputs.close()
            self._inputs = None

    def _discard(self) -> None:
        """Close everything and remove the unfinished file; nothing to do once it was renamed."""
        self._close_input()
        try:
            output = getattr(self, "_output", None)
            if output is not None:
                output.close()
        except (av.error.FFmpegError, OSError, ValueError):
            pass  # the disk may be full: the file goes anyway
        finally:
            self._temporary.unlink(missing_ok=True)


class FrameWriter:
    """Writes frames as PNG files into a new folder, which appears whole or not at all. Used as :class:`VideoWriter`.

    Args:
        path: the folder; it must not exist, or be empty.

    Raises:
        UserError: the folder holds something, or cannot be made.
    """

    left_out: Sequence[str] = ()

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UserError(f"{path}: is there already; name a new or an empty folder for the frames")
        self._temporary = claim(self.path)
        self._temporary.mkdir(parents=True)

    def check(self) -> None:
        """As :meth:`VideoWriter.check`: what can be known is known by now."""
        self._temporary.rmdir()

    def __enter__(self) -> "FrameWriter":
        return self

    def write(self, image: np.ndarray, frame: TimedFrame) -> None:
        """Write ``image``, uint8 (H, W, 3) RGB, under the name of ``frame``, or its number."""
        file = self._temporary / f"{frame.name or f'{frame.index:06d}'}.png"
        file.write_bytes(cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))[1].tobytes())

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            if kind is None:
                if self.path.is_dir():
                    self.path.rmdir()
                self._temporary.replace(self.path)
        finally:
            if self._temporary.is_dir():
                for file in self._temporary.iterdir():
                    file.unlink()
                self._temporary.rmdir()


def remux(source: VideoSource, path: str | Path) -> list[str]:
    """Copy the pictures, bit by bit, and the other streams of ``source`` into another container.

    Returns:
        What does not fit into it, in words.

    Raises:
        UserError: the container does not take the pictures as they are.
    """
    path, left_out = Path(path), []
    temporary = claim(path)
    try:
        with (
            _open(source.path) as inputs,
            av.open(str(temporary), "w", options=_container_options(path.suffix)) as output,
        ):
            video = _video_stream(inputs, source.path)
            codec = video.codec_context.codec.canonical_name
            if path.suffix.lower() in MP4 and codec not in IN_MP4:
                raise ValueError(f"{codec} in MP4 is not played")
            # Opaque: no encoder of the same name is needed.
            picture = output.add_stream_from_template(video, opaque=True)
            if source.rotation:
                picture.set_display_rotation(source.rotation)
            if codec == "hevc" and path.suffix.lower() in MP4:
                picture.codec_context.codec_tag = "hvc1"
            copied = _add_copies(output, picture, inputs, video, path.suffix, left_out)
            copied[video.index] = picture
            for packet in _with_times(inputs.demux([inputs.streams[i] for i in copied]), video):
                shift = round(source.start / packet.time_base)
                packet.dts, packet.pts = packet.dts - shift, packet.pts - shift
                packet.stream = copied[packet.stream_index]
                output.mux(packet)
        twin = VideoSource(temporary)
        kept = (twin.height, twin.width, twin.rotation, twin.pixel_aspect or 1)
        if kept != (source.height, source.width, source.rotation, source.pixel_aspect or 1):
            raise ValueError("the pictures' shape or rotation would be lost")
        temporary.replace(path)
    except (UserError, ValueError, av.error.FFmpegError) as error:
        raise UserError(f"{path}: does not take the pictures of {source.path} as they are: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return left_out


def _with_times(packets: Iterator[Any], video: Any) -> Iterator[Any]:
    """``packets`` with decoding times also where the file has none: before the first of a stream with B-frames."""
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
            for before, one in enumerate(reversed(waiting)):
                one.dts = packet.dts - before * step
            yield from waiting
            waiting = []
    if waiting:
        raise ValueError("its pictures have no time stamps")


def claim(path: Path) -> Path:
    """A hidden name of this process beside ``path``, with its suffix. What killed runs left of the same is removed."""
    own = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    pattern = re.compile(re.escape(f".{path.stem}.") + r"(\d+)" + re.escape(path.suffix))
    for file in path.parent.iterdir() if path.parent.is_dir() else ():
        match = pattern.fullmatch(file.name)
        if match and (file == own or not _alive(int(match[1]))):
            shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
    return own


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


_OF_THE_FILE = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder", "DURATION"})


def _add_copies(output: Any, picture: Any, inputs: Any, video: Any, suffix: str, left_out: list[str]) -> dict[int, Any]:
    """Add all that is not picture: tags, chapters, sound and subtitles.

    Args:
        output: the container to write.
        picture: its video stream.
        inputs: the container to copy from.
        video: its video stream.
        suffix: of the written file.
        left_out: gets what does not fit.

    Returns:
        The new streams by the index of those that they copy.
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
            left_out.append(f"{what} does not fit into {suffix}")
            continue
        copy.metadata.update({k: v for k, v in stream.metadata.items() if k in ("language", "title")})
        copy.disposition = stream.disposition
        copied[stream.index] = copy
    return copied


def _container_options(suffix: str) -> dict[str, str]:
    # Plays while it downloads. The index is moved to the front when the file is closed.
    return {"movflags": "+faststart"} if suffix.lower() in MP4 else {}


def _fits(stream: Any, suffix: str) -> bool:
    name = stream.codec_context.name
    if stream.type == "subtitle" and suffix.lower() in MP4:
        return name in ("mov_text", "dvdsub", "dvd_subtitle")  # FFmpeg would take others and fail at the header
    return True


def _frames_by_duration(container: Any, stream: Any, fps: Fraction) -> int | None:
    """How many frames the header's duration makes, None where it names none for the video alone."""
    if stream.duration is not None and stream.time_base is not None:
        return round(stream.duration * stream.time_base * fps)
    if match := re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", "")):
        hours, minutes, seconds = (float(group) for group in match.groups())
        return round((3600 * hours + 60 * minutes + seconds) * fps)
    if container.duration and len(container.streams) == 1:
        return round(Fraction(container.duration, av.time_base) * fps)
    return None


def _to_rgb(frame: Any) -> np.ndarray:
    """As :func:`keep.data.video_io.to_rgb`, exact rather than fast: what is not restored must come out as it was."""
    image = frame.reformat(format="rgb24", interpolation=EXACT).to_ndarray()
    quarter_turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, quarter_turns)) if quarter_turns else image


def _to_yuv(picture: Any, matrix: int, full: bool) -> Any:
    """RGB → 8-bit 4:2:0. The converter truncates full-range chroma, a green tint; so 16 bits are rounded here."""
    how = {"dst_colorspace": matrix, "interpolation": EXACT}
    if not full:
        return picture.reformat(format="yuv420p", dst_color_range=1, **how)
    deep = picture.reformat(format="yuv420p16le", dst_color_range=FULL, **how)
    planes = []
    for number, plane in enumerate(deep.planes):
        values = np.frombuffer(plane, "<u2").reshape(plane.height, -1)[:, : plane.width].astype(np.float32)
        zero = 128 if number else 0
        planes.append(((values - 256 * zero) / 257 + zero + 0.5).clip(0, 255).astype(np.uint8).ravel())
    return av.VideoFrame.from_ndarray(np.concatenate(planes).reshape(-1, deep.width), format="yuv420p")


def _read_image(path: Path) -> np.ndarray | None:
    try:
        image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # an empty file
        return None
    return None if image is None else np.ascontiguousarray(image[..., ::-1])


def _open(path: Path) -> Any:
    try:
        container = av.open(str(path), metadata_errors="replace")
    except (av.error.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: not a video file, or a truncated one: {reason}") from error
    name = container.format.name
    if name in ("image2", "tty") or name.endswith("_pipe"):  # FFmpeg makes videos of images and of text
        container.close()
        raise UserError(f"{path}: not a video file ({name}); images go into a folder of frames")
    return container


def _video_stream(container: Any, path: Path) -> Any:
    from av.stream import Disposition

    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise UserError(f"{path}: has no video stream")
    return streams[0]
