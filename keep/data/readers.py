"""Which library decodes the videos of a dataset: PyAV, or torchcodec where its frames equal PyAV's.

Every kind of video (pixel format, range, matrix) is checked once per process, on small clips made in memory: number of
frames, time stamps and pixels must be exactly PyAV's. A kind that differs is read by PyAV.
"""

import importlib
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch.utils.data import get_worker_info

from keep.data.base import ClipDataset
from keep.data.decode import VideoFile, decode, ffmpeg_path, orientation, video_stream
from keep.data.reader_clips import Kind, check_clip, kind_of_frame
from keep.data.timeline import Timeline
from keep.data.video_io import read_video
from keep.utils.errors import UserError
from keep.utils.logging import log

Reader = Literal["pyav", "torchcodec", "auto"]
PLAIN = Kind("yuv420p", 0, 2)  # what torchcodec must at least be able to decode
SIZES = ((64, 48), (66, 50))  # widths that are, and are not, a multiple of the vector units
FAILURES = (RuntimeError, ValueError, IndexError, OSError, AttributeError, TypeError)


class VideoDataset(ClipDataset):
    """Base of the datasets of videos."""

    def __init__(self, root: str, reader: Reader = "pyav", **options: Any) -> None:
        """As :class:`ClipDataset`.

        Args:
            root: folder that is searched with its subfolders, or one file.
            reader: library that decodes the videos: pyav; torchcodec (extra ``torchcodec``), for the kinds of video
                whose frames a check finds equal to PyAV's, the others by PyAV; auto: torchcodec if it can be used, else
                pyav. The frames are the same.
        """
        self.reader, self._torchcodec = reader, with_torchcodec(reader)
        super().__init__(root, **options)

    def read_file(self, file: VideoFile, start: int, count: int, step: int, timeline: Timeline) -> np.ndarray:
        """As :func:`keep.data.video_io.read_video`, by the chosen reader."""
        if self._torchcodec:
            frames = read_equal(file, start, count, step, timeline)
            if frames is not None:
                return frames
        return read_video(file.path, start, count, step, timeline, file.content)


def with_torchcodec(reader: Reader) -> bool:
    """Whether to read by torchcodec.

    Raises:
        UserError: ``reader`` is torchcodec, which is missing or cannot decode.
    """
    if reader == "pyav":
        return False
    try:
        _torchcodec()
        _all_frames(VideoFile("check", check_clip(PLAIN, *SIZES[0])))
    except ImportError:
        problem = "needs the package torchcodec: pip install keep-vfsr[torchcodec]"
    except FAILURES as error:
        problem = (
            f"cannot decode here: {_reason(error)}; it needs the shared libraries of FFmpeg, or set reader to pyav"
        )
    else:
        return True
    if reader == "auto":
        log.info(f"reader: auto: pyav, as torchcodec {problem}")
        return False
    raise UserError(f"reader: torchcodec {problem}")


# --- one file -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class About:
    """What torchcodec needs to know of a file: its kind, the number of its stream, the unit of its time stamps."""

    kind: Kind
    stream: int
    unit: Fraction


_known: dict[tuple[str, int, int], About | None] = {}  # per process; None: this file is read by PyAV


def read_equal(file: VideoFile, start: int, count: int, step: int, timeline: Timeline) -> np.ndarray | None:
    """The frames by torchcodec, uint8 (count, H, W, 3) RGB; None where PyAV must read them.

    That is: a kind that differs, a rotated video, one without usable time stamps, a damaged one. The number of frames
    of the file, and the time stamp of each frame that is read, are compared with the timeline.
    """
    key = _identity(file)
    if key not in _known:
        _known[key] = None if timeline.pts is None else _about(file)
    about = _known[key]
    if about is None or timeline.pts is None:
        return None
    wanted = range(start, start + (count - 1) * step + 1, step)
    if start < 0 or step < 1 or count < 1 or wanted[-1] >= timeline.info.frames:
        return None  # read_video reports it
    try:
        total, frames, times = _frames(file, about.stream, wanted)
    except FAILURES:
        return None  # PyAV reports what is wrong with the file
    stamps = [round(time / about.unit) for time in times]
    shape = count, timeline.info.height, timeline.info.width, 3
    if total == timeline.info.frames and stamps == [timeline.pts[n] for n in wanted] and frames.shape == shape:
        return frames
    _known[key] = None
    return None


def _identity(file: VideoFile) -> tuple[str, int, int]:
    """(path, size, time of change): a file that is written again is looked at again."""
    if file.content is not None:
        return str(file.path), len(file.content), 0
    try:
        stat = Path(file.path).stat()
    except OSError as error:
        raise UserError(f"{file.path}: cannot be read: {error.strerror}") from None
    return str(file.path), stat.st_size, stat.st_mtime_ns


def _about(file: VideoFile) -> About | None:
    """None for a file that PyAV must read."""
    with file.open() as container:
        stream = video_stream(container, file.path)
        index, unit = stream.index, stream.time_base
    frame = next(decode(file), None)
    if frame is None or unit is None or orientation(frame) != (0, False):
        return None
    kind = kind_of_frame(frame)
    return None if difference(kind) else About(kind, index, Fraction(unit))


def _frames(file: VideoFile, stream: int | None, wanted: range | None) -> tuple[int, np.ndarray, list[float]]:
    """(number of frames of the file, frames, their times in seconds) by torchcodec."""
    source = ffmpeg_path(file.path) if file.content is None else file.content
    options: dict[str, Any] = {"dimension_order": "NHWC", "num_ffmpeg_threads": 1, "device": "cpu"}
    decoder = _torchcodec()(source, stream_index=stream, **options)
    wanted = range(len(decoder)) if wanted is None else wanted
    batch = decoder.get_frames_in_range(wanted.start, wanted.stop, wanted.step)
    return len(decoder), batch.data.numpy(), batch.pts_seconds.tolist()


def _all_frames(file: VideoFile) -> tuple[int, np.ndarray, list[float]]:
    return _frames(file, None, None)


def _reason(error: Exception) -> str:
    """The first sentence of an error: torchcodec's have many lines."""
    return str(error).strip().partition("\n")[0].partition(". ")[0]


def _torchcodec() -> Any:
    return importlib.import_module("torchcodec.decoders").VideoDecoder


# --- the check of a kind ------------------------------------------------------------------------------------------


@cache
def difference(kind: Kind) -> str:
    """In what torchcodec differs from PyAV for a kind of video, "" if in nothing; warns once if it does."""
    found = next((text for size in SIZES if (text := _difference(kind, *size))), "")
    worker = get_worker_info()
    if found and (worker is None or worker.id == 0):  # the workers of a loader find the same
        log.warning(f"warning: torchcodec: {kind}: {found}; PyAV reads these videos")
    return found


def _difference(kind: Kind, width: int, height: int) -> str:
    content = check_clip(kind, width, height)
    if content is None:
        return "no clip of this kind can be made to compare it with PyAV"
    file = VideoFile("check", content)
    truth = read_video(file.path, content=content)
    expected = [float(frame.time) for frame in decode(file)]
    try:
        total, frames, times = _all_frames(file)
    except FAILURES as error:
        return f"cannot decode it ({_reason(error)})"
    if total != len(truth) or len(frames) != len(truth):
        return f"{len(frames)} frames, {len(truth)} by PyAV"
    if times != expected:
        return "other time stamps than PyAV"
    if frames.shape != truth.shape or frames.dtype != truth.dtype:
        return f"frames of {frames.dtype} {frames.shape[1:]}, by PyAV {truth.dtype} {truth.shape[1:]}"
    apart = np.abs(frames.astype(int) - truth)
    return f"pixels differ from PyAV's by up to {apart.max()} of 255" if apart.any() else ""
