"""Reading video by exact frame number, and writing it; PyAV underneath.

All frames are uint8 (H, W, 3) RGB. Decoding uses one thread, since loader workers are the parallelism.
"""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.stream import Disposition

from keep.degradation.codec import pad_to_even, repeatable, require_encoder
from keep.utils.errors import UserError
from keep.utils.io import AtomicWrite

VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".ts", ".mpg", ".mpeg"})
BT601 = 6  # FFmpeg's number for the SMPTE 170M matrix


@dataclass(frozen=True)
class VideoInfo:
    """What a video holds.

    Attributes:
        frames: how many frames :func:`read_video` gives.
        height: of a frame as it is shown (rotation applied), in pixels.
        width: likewise.
        fps: average frame rate.
    """

    frames: int
    height: int
    width: int
    fps: Fraction


@dataclass(frozen=True)
class Timeline:
    """A video's frames in display order, from its packets alone: with it, reading need not go through them again.

    ``pts`` are the time stamps by frame number, ``keys`` those of the key frames; both sorted. They are None
    for containers without usable time stamps (AVI), whose frames are found by counting from the start.
    """

    info: VideoInfo
    pts: Sequence[int] | None
    keys: Sequence[int] | None

    def dump(self) -> dict[str, Any]:
        """Plain JSON data; even time stamps as ``[first, step]``."""
        i, pts = self.info, self.pts
        even = {"even": [pts.start, pts.step]} if isinstance(pts, range) else {"pts": pts and list(pts)}
        size = {"frames": i.frames, "height": i.height, "width": i.width}
        return {**size, "fps": str(i.fps), **even, "keys": self.keys and list(self.keys)}

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> "Timeline":
        info = VideoInfo(data["frames"], data["height"], data["width"], Fraction(data["fps"]))
        pts, keys = data.get("pts"), data["keys"]
        if "even" in data:
            first, step = data["even"]
            pts = range(first, first + step * info.frames, step)
        return cls(info, pts if pts is None else _compact(pts), keys if keys is None else tuple(keys))


def probe(path: str | Path) -> VideoInfo:
    """Exact number of frames, size and rate; reads every packet but decodes one frame.

    Raises:
        UserError: the file is missing, not a video, has no video stream, or is truncated.
    """
    return timeline_of(path).info


def read_video(
    path: str | Path,
    start: int = 0,
    count: int | None = None,
    step: int = 1,
    timeline: Timeline | None = None,
    content: bytes | None = None,
) -> np.ndarray:
    """Frames ``start, start + step, …``, ``count`` of them (None: to the end), as uint8 (T, H, W, 3) RGB.

    Seeks to the key frame before ``start`` and decodes from there; the result equals slicing a full decode.

    Args:
        timeline: of the video, where it is known already.
        content: the video file's bytes, where they are not at ``path``, which is then only its name in messages.

    Raises:
        UserError: as :func:`probe`; or the range is empty, passes the end, or cannot be decoded; or the frames
            differ in size.
    """
    source = _Source(path, content)
    timeline = timeline or (timeline_of(path) if content is None else read_timeline(path, content))
    total = timeline.info.frames
    if start < 0 or step < 1:
        raise UserError(f"{path}: start must be >= 0 and step >= 1, got start {start}, step {step}")
    if count is None:
        count = len(range(start, total, step))
    last = start + (count - 1) * step
    if count < 1 or last >= total:
        raise UserError(f"{path}: {count} frames from {start} with step {step} were asked for; it has {total} frames")
    wanted = range(start, last + 1, step)
    frames: list[np.ndarray] = []
    for index, frame in _decode_from(source, timeline, start, last):
        if index in wanted:
            frames.append(to_rgb(frame))
            _check_size(path, index, frames[-1], frames[0])
    if len(frames) != count:
        raise UserError(f"{path}: truncated or damaged: {len(frames)} of the {count} frames asked for can be decoded")
    return np.stack(frames)


def iter_video(path: str | Path) -> Iterator[np.ndarray]:
    """Every frame in order, one at a time, uint8 (H, W, 3) RGB.

    Raises:
        UserError: as :func:`probe`; for a frame of another size; at the end, if fewer frames can be decoded than
            the file holds.
    """
    timeline, given, first = timeline_of(path), 0, None
    total = timeline.info.frames
    for index, frame in _decode_from(_Source(path), timeline, 0, total - 1):
        image = to_rgb(frame)
        first = image if first is None else first
        _check_size(path, index, image, first)
        yield image
        given += 1
    if given != total:
        raise UserError(f"{path}: truncated or damaged: {given} of its {total} frames can be decoded")


def check_video(path: str | Path) -> VideoInfo:
    """Decode every frame; what :func:`probe` gives.

    Raises:
        UserError: as :func:`iter_video`.
    """
    for _ in iter_video(path):
        pass
    return probe(path)


def _check_size(path: str | Path, index: int, image: np.ndarray, first: np.ndarray) -> None:
    if image.shape != first.shape:
        size, before = (f"{i.shape[1]}x{i.shape[0]}" for i in (image, first))
        raise UserError(f"{path}: the frame size varies: frame {index} is {size}, those before it {before}")


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    fps: Fraction | float,
    codec: str = "libx264",
    crf: int = 18,
    pix_fmt: str | None = None,
    keyint: int | None = None,
) -> None:
    """Write frames as a video; the file appears whole or not at all.

    Args:
        path: where; its suffix picks the container (``.mp4``, ``.mkv``, …).
        frames: uint8 (H, W, 3) RGB, all of one size. Where ``pix_fmt`` is a yuv420p one, an odd side is padded
            to even by repeating the last row or column.
        fps: frame rate.
        codec: an FFmpeg encoder; ``"ffv1"`` in ``.mkv`` is lossless.
        crf: constant rate factor, for the encoders that have one.
        pix_fmt: FFmpeg pixel format; None is ``yuv420p``, or ``bgr0`` (RGB, lossless) for ffv1.
        keyint: most frames from one key frame to the next; None is the encoder's own choice. Reading from the
            middle decodes from the key frame before: training clips want them close together.

    Raises:
        UserError: no frames, frames that differ in size, an unknown encoder, or one that refuses these options.
    """
    path = Path(path)
    pix_fmt = pix_fmt or ("bgr0" if codec == "ffv1" else "yuv420p")
    require_encoder(codec)
    if not path.parent.is_dir():
        raise UserError(f"{path}: cannot write: there is no folder {path.parent}")
    try:
        options = {} if codec == "ffv1" else {"crf": str(crf)}
        options |= {} if keyint is None else {"g": str(keyint)}
        with AtomicWrite(path) as temporary:
            _encode(temporary, frames, Fraction(fps).limit_denominator(100_000), codec, options, pix_fmt, name=path)
    except av.error.FFmpegError as error:
        raise UserError(f"{path}: cannot write it with {codec}, {pix_fmt}: {_reason(error)}") from error


def to_rgb(frame: Any) -> np.ndarray:
    """A decoded PyAV frame as uint8 (H, W, 3) RGB, turned as its rotation tag says."""
    image = frame.to_ndarray(format="rgb24", threads=1)
    quarter_turns = round(frame.rotation / 90) % 4  # counter-clockwise, as np.rot90 counts
    return np.ascontiguousarray(np.rot90(image, quarter_turns)) if quarter_turns else image


def _encode(
    temporary: Path,
    frames: Iterable[np.ndarray],
    fps: Fraction,
    codec: str,
    options: dict[str, str],
    pix_fmt: str,
    name: Path,
) -> None:
    images = iter(frames)
    first = next(images, None)
    if first is None:
        raise UserError(f"{name}: there are no frames to write")
    even = pad_to_even if "420" in pix_fmt else np.asarray
    height, width = even(first).shape[:2]
    if codec == "libx264":
        options = {**options, **repeatable(width)}
    try:
        output = av.open(whole(temporary), "w")
        stream: Any = output.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, pix_fmt
    except ValueError as error:
        raise UserError(f"{name}: cannot write {codec}, {pix_fmt} into a {name.suffix} file: {error}") from error
    with output as container:
        stream.codec_context.thread_count = 1  # with more, the bytes depend on the machine
        matrix = None
        if pix_fmt.startswith("yuv"):
            # Say which matrix was used: players guess BT.709 for large frames.
            stream.codec_context.colorspace = BT601
            matrix = "itu601"
        for number, image in enumerate(chain([first], images)):
            if image.shape != first.shape or image.dtype != np.uint8:
                raise UserError(
                    f"{name}: frame {number} is {image.dtype} {image.shape}, the first is uint8 {first.shape}"
                )
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even(image)), format="rgb24")
            container.mux(stream.encode(frame.reformat(format=pix_fmt, dst_colorspace=matrix, threads=1)))
        container.mux(stream.encode())


def whole(path: str | Path) -> str:
    """The name by which FFmpeg takes it for a file: it takes ``12:30.mp4`` for an address."""
    return str(Path(path).absolute())


@dataclass(frozen=True)
class _Source:
    """Where a video's bytes are: at its path, or in memory under that name."""

    path: str | Path
    content: bytes | None = None

    def open(self) -> Any:
        try:
            return av.open(whole(self.path) if self.content is None else io.BytesIO(self.content))
        except (av.error.FFmpegError, OSError) as error:
            raise UserError(f"{self.path}: not a video file, or a truncated one: {_reason(error)}") from error


def timeline_of(path: str | Path) -> Timeline:
    """The timeline of a video file; remembered until the file changes.

    Raises:
        UserError: as :func:`probe`.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if not path.is_file():
        raise UserError(f"{path}: is a folder, not a video file")
    stat = path.stat()
    return _remembered(str(path), stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1024)
def _remembered(path: str, modified_ns: int, size: int) -> Timeline:
    """By modification time and size too, so that a rewritten file is read again."""
    return read_timeline(path)


def read_timeline(path: str | Path, content: bytes | None = None) -> Timeline:
    """The timeline, from the packets of the file at ``path``, or from its ``content``.

    Raises:
        UserError: as :func:`probe`.
    """
    source = _Source(path, content)
    with source.open() as container:
        stream: Any = _video_stream(container, path)
        promised, container_format = stream.frames, container.format.name
        try:
            packets = [(p.pts, p.is_keyframe, p.is_discard) for p in container.demux(stream) if p.size]
        except av.error.FFmpegError as error:
            raise UserError(f"{path}: cannot be read: {_reason(error)}") from error
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    if len(packets) < promised and container_format != "avi":  # an AVI header counts repeated frames too
        raise UserError(f"{path}: truncated: its header names {promised} frames, the file holds {len(packets)}")
    first = _first_frame(source)
    height, width = first.shape[:2]
    fps = Fraction(rate.numerator, rate.denominator)

    stamps = [pts for pts, _, discard in packets if not discard]
    keys = [pts for pts, key, _ in packets if key]
    usable = bool(keys) and None not in {pts for pts, _, _ in packets} and len(set(stamps)) == len(stamps)
    if not usable or container_format == "avi":  # AVI has no time stamps: FFmpeg's guesses are wrong for B-frames
        count = sum(1 for _ in _decode(source))
        return Timeline(VideoInfo(count, height, width, fps), None, None)
    # A stream cut inside a group of pictures starts with frames that cannot be decoded.
    pts = _compact(sorted(s for s in stamps if s >= min(keys)))
    return Timeline(VideoInfo(len(pts), height, width, fps), pts, tuple(sorted(keys)))


def _compact(pts: Sequence[int]) -> Sequence[int]:
    """Even time stamps as a range: a data set's timelines stay in memory."""
    if len(pts) > 1:
        even = range(pts[0], pts[-1] + 1, pts[1] - pts[0])
        if len(even) == len(pts) and all(a == b for a, b in zip(even, pts, strict=True)):
            return even
    return tuple(pts)


def _first_frame(source: _Source) -> np.ndarray:
    for frame in _decode(source):
        return to_rgb(frame)
    raise UserError(f"{source.path}: truncated or damaged: not one frame can be decoded")


def _decode_from(source: _Source, timeline: Timeline, start: int, last: int) -> Iterator[tuple[int, Any]]:
    """(frame number, PyAV frame) for the frames ``start`` to ``last``, in order."""
    if timeline.pts is None or timeline.keys is None:
        for index, frame in enumerate(_decode(source)):
            if index > last:
                return
            if index >= start:
                yield index, frame
        return
    number = {stamp: index for index, stamp in enumerate(timeline.pts[start : last + 1], start)}
    expected = start
    for frame in _decode_before(source, timeline.pts[start], timeline.keys):
        index = number.get(frame.pts)
        if index is None:
            continue  # between the key frame and the start
        if index != expected:
            raise UserError(f"{source.path}: damaged: frame {expected} cannot be decoded")
        yield index, frame
        if index == last:
            return
        expected += 1


def _decode_before(source: _Source, stamp: int, keys: Sequence[int]) -> Iterator[Any]:
    """PyAV frames from a key frame at or before the time ``stamp``.

    Some containers land after the key frame they are asked for: then the one before it is tried, and at last the start.
    """
    for key in [k for k in keys if k <= stamp][:-4:-1]:
        frames = _decode(source, seek=key, wanted=stamp)
        first = next(frames, None)
        if first is not None and first.pts is not None and first.pts <= stamp:
            return chain([first], frames)
    return _decode(source)


def _decode(source: _Source, seek: int | None = None, wanted: int | None = None) -> Iterator[Any]:
    """PyAV frames in display order, from the start or from the key frame at time stamp ``seek``.

    Before the time ``wanted``, frames that no other frame refers to are left out.
    """
    with source.open() as container:
        stream: Any = _video_stream(container, source.path)
        context = stream.codec_context
        context.thread_count = 1
        try:
            if seek is not None:
                container.seek(seek, stream=stream)
            for packet in container.demux(stream):
                early = wanted is not None and packet.pts is not None and packet.pts < wanted
                context.skip_frame = "NONREF" if early and not packet.is_keyframe else "DEFAULT"
                yield from packet.decode()
        except av.error.FFmpegError as error:
            raise UserError(f"{source.path}: truncated or damaged: {_reason(error)}") from error


def _video_stream(container: Any, path: str | Path) -> Any:
    cover = Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & cover]
    if not streams:
        raise UserError(f"{path}: has no video stream")
    if streams[0].codec_context is None:
        raise UserError(f"{path}: the FFmpeg that PyAV uses has no decoder for its video codec")
    return streams[0]


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
