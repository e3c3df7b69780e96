"""Reading videos by exact frame number, and writing them; all frames are uint8 (H, W, 3) RGB."""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from keep.data.decode import VideoFile, decode, ffmpeg_path, orientation, reason, to_rgb
from keep.data.timeline import Timeline, VideoInfo, read_timeline, timeline_of
from keep.degradation.codec import pad_to_even, repeatable, require_encoder
from keep.utils.errors import UserError
from keep.utils.io import AtomicWrite

VIDEO_SUFFIXES = frozenset(
    {
        ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".m2t", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov",
        ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".qt", ".ts", ".vob", ".webm", ".wmv",
    }
)  # fmt: skip
BT601 = 6  # FFmpeg's number for the SMPTE 170M matrix

# --- reading ----------------------------------------------------------------------------------------------------


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
    """``count`` frames ``start, start + step, …`` (None: to the end), as uint8 (T, H, W, 3) RGB.

    Seeks to the key frame before ``start`` and decodes from there; the result equals slicing a full decode.

    Args:
        timeline: of the video, if it is known.
        content: the bytes of the video; ``path`` is then only its name in messages.

    Raises:
        UserError: as :func:`probe`; or the range is empty, exceeds the video, or cannot be decoded; or the frames
            differ in size.
    """
    file = VideoFile(path, content)
    timeline = timeline or (timeline_of(path) if content is None else read_timeline(path, content))
    total = timeline.info.frames
    if start < 0 or step < 1:
        raise UserError(f"{path}: start must be >= 0 and step >= 1, got start {start}, step {step}")
    if count is None:
        count = len(range(start, total, step))
    last = start + (count - 1) * step
    if count < 1 or last >= total:
        raise UserError(f"{path}: cannot read {count} frames from {start} with step {step}; it has {total} frames")
    wanted = range(start, last + 1, step)
    frames: list[np.ndarray] = []
    turn = None
    for index, frame in _decode_range(file, timeline, start, last):
        if index in wanted:
            turn = turn or orientation(frame)
            frames.append(to_rgb(frame, turn))
            _check_size(path, index, frames[-1], frames[0])
    if len(frames) != count:
        raise UserError(f"{path}: truncated or damaged: {len(frames)} of {count} frames can be decoded")
    return np.stack(frames)


def iter_video(path: str | Path) -> Iterator[np.ndarray]:
    """Every frame in order, one at a time, uint8 (H, W, 3) RGB.

    Raises:
        UserError: as :func:`probe`; for a frame of another size; at the end, if not all frames can be decoded.
    """
    timeline, decoded, first, turn = timeline_of(path), 0, None, None
    total = timeline.info.frames
    for index, frame in _decode_range(VideoFile(path), timeline, 0, total - 1):
        turn = turn or orientation(frame)
        image = to_rgb(frame, turn)
        first = image if first is None else first
        _check_size(path, index, image, first)
        yield image
        decoded += 1
    if decoded != total:
        raise UserError(f"{path}: truncated or damaged: {decoded} of its {total} frames can be decoded")


def check_video(path: str | Path) -> VideoInfo:
    """Decode every frame; returns the same as :func:`probe`.

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


def _decode_range(file: VideoFile, timeline: Timeline, start: int, last: int) -> Iterator[tuple[int, Any]]:
    """(frame number, PyAV frame) of the frames ``start`` to ``last``, in order."""
    if timeline.pts is None or timeline.keys is None:
        for index, frame in enumerate(decode(file)):
            if index > last:
                return
            if index >= start:
                yield index, frame
        return
    number = {stamp: index for index, stamp in enumerate(timeline.pts[start : last + 1], start)}
    expected = start
    for frame in _decode_from_key(file, timeline.pts[start], timeline.keys):
        index = number.get(frame.pts)
        if index is None:
            continue  # between the key frame and the start
        if index != expected:
            raise UserError(f"{file.path}: damaged: frame {expected} cannot be decoded")
        yield index, frame
        if index == last:
            return
        expected += 1


def _decode_from_key(file: VideoFile, stamp: int, keys: Sequence[int]) -> Iterator[Any]:
    """PyAV frames from a key frame at or before the time ``stamp``.

    Some containers seek past the requested key frame: then the one before it is tried, and finally the start.
    """
    for key in [k for k in keys if k <= stamp][:-4:-1]:
        frames = decode(file, seek=key, wanted=stamp)
        first = next(frames, None)
        if first is not None and first.pts is not None and first.pts <= stamp:
            return chain([first], frames)
    return decode(file)


# --- writing ----------------------------------------------------------------------------------------------------


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    fps: Fraction | float,
    codec: str = "libx264",
    crf: int = 18,
    pix_fmt: str | None = None,
    keyint: int | None = None,
) -> None:
    """Write frames as a video, atomically.

    Args:
        path: of the file; its suffix selects the container (``.mp4``, ``.mkv``, …).
        frames: uint8 (H, W, 3) RGB, all of one size. With a yuv420p ``pix_fmt``, an odd side is padded to even by
            repeating the last row or column.
        fps: frame rate.
        codec: an FFmpeg encoder; ``"ffv1"`` in ``.mkv`` is lossless.
        crf: constant rate factor, for encoders that have one.
        pix_fmt: FFmpeg pixel format; None is ``yuv420p``, or ``bgr0`` (RGB, lossless) for ffv1.
        keyint: most frames from one key frame to the next; None is the encoder's default. A reader that starts in the
            middle decodes from the key frame before, so training clips need short intervals.

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
        raise UserError(f"{path}: cannot write it with {codec}, {pix_fmt}: {reason(error)}") from error


def _encode(
    target: Path,
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
        output = av.open(ffmpeg_path(target), "w")
        stream: Any = output.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, pix_fmt
    except ValueError as error:
        raise UserError(f"{name}: cannot write {codec}, {pix_fmt} into a {name.suffix} file: {error}") from error
    with output as container:
        stream.codec_context.thread_count = 1  # with more, the bytes depend on the machine
        matrix = None
        if pix_fmt.startswith("yuv"):
            # Store which matrix was used: players assume BT.709 for large frames.
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
