"""Reading video by exact frame number, and writing it; PyAV underneath.

All frames are uint8 (H, W, 3) RGB. Decoding uses one thread, since loader workers are the parallelism.
"""

import os
from collections.abc import Iterable, Iterator
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

from keep.degradation.codec import pad_to_even, require_encoder
from keep.errors import UserError

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


def probe(path: str | Path) -> VideoInfo:
    """Exact number of frames, size and rate; reads every packet but decodes one frame.

    Raises:
        UserError: the file is missing, not a video, has no video stream, or is truncated.
    """
    return _timeline(path).info


def read_video(path: str | Path, start: int = 0, count: int | None = None, step: int = 1) -> np.ndarray:
    """Frames ``start, start + step, …``, ``count`` of them (None: to the end), as uint8 (T, H, W, 3) RGB.

    Seeks to the key frame before ``start`` and decodes from there; the result equals slicing a full decode.

    Raises:
        UserError: as :func:`probe`; or the range is empty, passes the end, or cannot be decoded.
    """
    total = probe(path).frames
    if start < 0 or step < 1:
        raise UserError(f"{path}: start must be >= 0 and step >= 1, got start {start}, step {step}")
    if count is None:
        count = len(range(start, total, step))
    last = start + (count - 1) * step
    if count < 1 or last >= total:
        raise UserError(f"{path}: {count} frames from {start} with step {step} were asked for; it has {total} frames")
    wanted = range(start, last + 1, step)
    frames = [to_rgb(frame) for index, frame in _decode_from(path, start, last) if index in wanted]
    if len(frames) != count:
        raise UserError(f"{path}: truncated or damaged: {len(frames)} of the {count} frames asked for can be decoded")
    return np.stack(frames)


def iter_video(path: str | Path) -> Iterator[np.ndarray]:
    """Every frame in order, one at a time, uint8 (H, W, 3) RGB.

    Raises:
        UserError: as :func:`probe`; at the end, if fewer frames can be decoded than the file holds.
    """
    total, given = probe(path).frames, 0
    for _, frame in _decode_from(path, 0, total - 1):
        yield to_rgb(frame)
        given += 1
    if given != total:
        raise UserError(f"{path}: truncated or damaged: {given} of its {total} frames can be decoded")


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    fps: Fraction | float,
    codec: str = "libx264",
    crf: int = 18,
    pix_fmt: str | None = None,
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

    Raises:
        UserError: no frames, frames that differ in size, an unknown encoder, or one that refuses these options.
    """
    path = Path(path)
    pix_fmt = pix_fmt or ("bgr0" if codec == "ffv1" else "yuv420p")
    require_encoder(codec)
    if not path.parent.is_dir():
        raise UserError(f"{path}: cannot write: there is no folder {path.parent}")
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        _encode(temporary, frames, Fraction(fps).limit_denominator(100_000), codec, crf, pix_fmt, name=path)
        temporary.replace(path)
    except av.error.FFmpegError as error:
        raise UserError(f"{path}: cannot write it with {codec}, {pix_fmt}: {_reason(error)}") from error
    finally:
        temporary.unlink(missing_ok=True)


def to_rgb(frame: Any) -> np.ndarray:
    """A decoded PyAV frame as uint8 (H, W, 3) RGB, turned as its rotation tag says."""
    image = frame.to_ndarray(format="rgb24", threads=1)
    quarter_turns = round(frame.rotation / 90) % 4  # counter-clockwise, as np.rot90 counts
    return np.ascontiguousarray(np.rot90(image, quarter_turns)) if quarter_turns else image


def _encode(
    temporary: Path, frames: Iterable[np.ndarray], fps: Fraction, codec: str, crf: int, pix_fmt: str, name: Path
) -> None:
    images = iter(frames)
    first = next(images, None)
    if first is None:
        raise UserError(f"{name}: there are no frames to write")
    even = pad_to_even if "420" in pix_fmt else np.asarray
    height, width = even(first).shape[:2]
    try:
        output = av.open(str(temporary), "w")
        stream: Any = output.add_stream(codec, rate=fps, options={} if codec == "ffv1" else {"crf": str(crf)})
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


@dataclass(frozen=True)
class _Timeline:
    """A video's frames in display order, from its packets alone.

    ``pts`` are the time stamps by frame number, ``keys`` those of the key frames; both sorted. They are None
    for containers without usable time stamps (AVI), whose frames are found by counting from the start.
    """

    info: VideoInfo
    pts: np.ndarray | None
    keys: np.ndarray | None


def _timeline(path: str | Path) -> _Timeline:
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if not path.is_file():
        raise UserError(f"{path}: is a folder, not a video file")
    stat = path.stat()
    return _read_timeline(str(path), stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=65536)
def _read_timeline(path: str, modified_ns: int, size: int) -> _Timeline:
    """Cached by modification time and size too, so that a rewritten file is read again."""
    with _open(path) as container:
        stream: Any = _video_stream(container, path)
        promised, container_format = stream.frames, container.format.name
        try:
            packets = [(p.pts, p.is_keyframe, p.is_discard) for p in container.demux(stream) if p.size]
        except av.error.FFmpegError as error:
            raise UserError(f"{path}: cannot be read: {_reason(error)}") from error
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    if len(packets) < promised and container_format != "avi":  # an AVI header counts repeated frames too
        raise UserError(f"{path}: truncated: its header names {promised} frames, the file holds {len(packets)}")
    first = _first_frame(path)
    height, width = first.shape[:2]
    fps = Fraction(rate.numerator, rate.denominator)

    stamps = [pts for pts, _, discard in packets if not discard]
    keys = [pts for pts, key, _ in packets if key]
    usable = bool(keys) and None not in {pts for pts, _, _ in packets} and len(set(stamps)) == len(stamps)
    if not usable or container_format == "avi":  # AVI has no time stamps: FFmpeg's guesses are wrong for B-frames
        count = sum(1 for _ in _decode_all(path))
        return _Timeline(VideoInfo(count, height, width, fps), None, None)
    # A stream cut inside a group of pictures starts with frames that cannot be decoded.
    pts = np.array(sorted(s for s in stamps if s >= min(keys)), dtype=np.int64)
    return _Timeline(VideoInfo(len(pts), height, width, fps), pts, np.array(sorted(keys), dtype=np.int64))


def _first_frame(path: str) -> np.ndarray:
    for frame in _decode_all(path):
        return to_rgb(frame)
    raise UserError(f"{path}: truncated or damaged: not one frame can be decoded")


def _decode_from(path: str | Path, start: int, last: int) -> Iterator[tuple[int, Any]]:
    """(frame number, PyAV frame) for the frames ``start`` to ``last``, in order."""
    timeline = _timeline(path)
    if timeline.pts is None or timeline.keys is None:
        for index, frame in enumerate(_decode_all(path)):
            if index > last:
                return
            if index >= start:
                yield index, frame
        return
    number = {int(stamp): index for index, stamp in enumerate(timeline.pts[start : last + 1], start)}
    expected = start
    for frame in _decode_before(path, int(timeline.pts[start]), timeline.keys):
        index = number.get(frame.pts)
        if index is None:
            continue  # between the key frame and the start
        if index != expected:
            raise UserError(f"{path}: damaged: frame {expected} cannot be decoded")
        yield index, frame
        if index == last:
            return
        expected += 1


def _decode_before(path: str | Path, stamp: int, keys: np.ndarray) -> Iterator[Any]:
    """PyAV frames from a key frame at or before the time ``stamp``.

    Some containers land after the key frame they are asked for: then the one before it is tried, and at last the start.
    """
    for key in keys[keys <= stamp][:-4:-1]:
        frames = _decode_all(path, seek=int(key))
        first = next(frames, None)
        if first is not None and first.pts is not None and first.pts <= stamp:
            return chain([first], frames)
    return _decode_all(path)


def _decode_all(path: str | Path, seek: int | None = None) -> Iterator[Any]:
    """PyAV frames in display order, from the start or from the key frame at time stamp ``seek``."""
    with _open(path) as container:
        stream: Any = _video_stream(container, path)
        stream.codec_context.thread_count = 1
        try:
            if seek is not None:
                container.seek(seek, stream=stream)
            yield from container.decode(stream)
        except av.error.FFmpegError as error:
            raise UserError(f"{path}: truncated or damaged: {_reason(error)}") from error


def _open(path: str | Path) -> Any:
    try:
        return av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise UserError(f"{path}: not a video file, or a truncated one: {_reason(error)}") from error


def _video_stream(container: Any, path: str | Path) -> Any:
    cover = Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & cover]
    if not streams:
        raise UserError(f"{path}: has no video stream")
    return streams[0]


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
