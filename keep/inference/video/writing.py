"""Pass 2: writes the output and what belongs beside it, all of them or none."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from keep.data.mux import FrameWriter, VideoSource, VideoWriter, remux
from keep.inference.video.judged import error_frame, explained, overlay_frame
from keep.inference.video.outputs import comparison_of, map_of, record_of
from keep.inference.video.pipeline import WaitingFrame, painted
from keep.inference.video.preflight import streams
from keep.inference.video.provenance import STATEMENT, UNCHANGED, origin, write_record
from keep.inference.video.scan import Scan
from keep.inference.video.signing import sign
from keep.inference.video.summary import Summary, count, source_notes
from keep.inference.video.task import Job, error_level, reporter
from keep.utils.errors import UserError
from keep.utils.io import AtomicWrite, remove_leftovers

DIVIDER = 4  # px between the halves of a comparison


def open_writers(
    job: Job, main: bool, extras: bool, statement: str = ""
) -> Iterator[FrameWriter | VideoWriter]:  # fmt: skip
    """The writers of the restored frames (``main``), and of the comparison and the expected error (``extras``), each
    opened when it is asked for; ``statement``: words for their metadata."""
    settings = job.settings
    encoding: dict[str, Any] = {
        "codec": settings.codec, "crf": settings.crf, "preset": settings.preset, "layout": job.layout,
        "statement": statement,
    }  # fmt: skip
    if main and settings.frames:
        yield FrameWriter(job.output, job.layout)
    elif main:
        yield VideoWriter(job.output, job.video, job.size, **encoding)
    if extras and settings.compare:
        height, width = job.size
        yield VideoWriter(comparison_of(job.output), job.video, (height, 2 * width + DIVIDER), **encoding)
    if extras and settings.confidence is not None:
        path = map_of(job.output, settings.confidence)
        yield VideoWriter(path, job.video, job.size, "h264", settings.crf, settings.preset, statement=statement)


@contextmanager
def written(
    job: Job, found: Scan, summary: Summary, main: bool, extras: bool
) -> Iterator[list[FrameWriter | VideoWriter]]:  # fmt: skip
    """Pass 2: restore the faces found, and write the frames (``main``), what was asked for beside them, or both.

    The files are complete inside the block, under temporary names. They get their names together at its end, and none
    is left after an error.
    """
    if not (main or (extras and (job.settings.compare or job.settings.confidence is not None))):
        yield []
        return
    report = reporter(job, "restoring", found.frames, found.tracks)
    frames, size = job.clock.each("decode", job.video), (job.video.height, job.video.width)
    summary.frames = summary.faces = 0
    with ExitStack() as stack:
        statement = STATEMENT if found.tracks else ""
        writers = [stack.enter_context(writer) for writer in open_writers(job, main, extras, statement)]
        pictures = painted(frames, size, found.tracks, job.tools.network, job.painter, job.clock, job.settings.batch)
        stack.enter_context(closing(pictures))
        for waiting, image in pictures:
            with job.clock("encode"):
                for writer in writers:
                    writer.write(shown_by(writer, job, waiting, image), waiting.frame)
            job.judged.add(waiting, float(waiting.frame.pts * job.video.time_base))
            summary.frames += 1
            summary.faces += len(waiting.faces)
            report(waiting.frame.index)
        for writer in writers:
            writer.finish()
        if main:
            summary.notes += source_notes(job.video)
            if refused := writers[0].refused:
                left_out = "of sound or subtitles damaged in the input, and left out"
                summary.notes.append(f"{count(refused, 'packet')} {left_out}")
        yield writers


def shown_by(writer: FrameWriter | VideoWriter, job: Job, waiting: WaitingFrame, image: np.ndarray) -> np.ndarray:
    """The picture of a frame that a writer gets; ``image`` is the restored one."""
    confidence = job.settings.confidence
    if job.settings.compare and writer.path == comparison_of(job.output):
        return beside(job.painter.given(waiting.frame), image)
    if confidence is not None and writer.path == map_of(job.output, confidence):
        draw = overlay_frame if confidence == "overlay" else error_frame
        return draw(image, waiting, job.painter.scale)
    return image


def record(job: Job, summary: Summary, complete: Path) -> None:
    """Sign the output, and write what is known of its origin and of its faces, where that was asked for.

    Args:
        job: the video.
        summary: gets notes.
        complete: the output under its temporary name, so that one that cannot be signed never gets its own.
    """
    settings = job.settings
    if settings.confidence is None and settings.sign is None:
        return
    about = origin(job.video.path, job.tools.about, asdict(settings), STATEMENT if summary.tracks else UNCHANGED)
    if settings.sign is not None and summary.tracks:
        sign(complete, settings.sign, about, job.output)
    elif settings.sign is not None:
        summary.notes.append("not signed: no face was restored")
    if settings.confidence is None:
        return
    level = error_level(job)
    assert level is not None
    content = {**about, "meaning": explained(level), "faces": job.judged.plain()}
    write_record(record_of(job.output), job.output, content, complete)
    summary.notes += job.judged.notes()


def write_unrestored(job: Job, found: Scan, summary: Summary) -> None:
    """Write the output of a video without faces to restore: a copy where possible, else encoded again."""
    note = summary.notes[0]
    if not can_copy(job, summary):
        with written(job, found, summary, main=True, extras=True) as writers:
            record(job, summary, writers[0].temporary)
        encoded = "" if job.settings.frames else ", the pictures are re-encoded"
        summary.notes[0] = f"{note}: nothing is restored{encoded}"
        return
    with written(job, found, summary, main=False, extras=True):
        if copied := copy_streams(job):
            record_copy(job, summary)
            summary.notes[0] = f"{note}: the content is unchanged, {copied}"
            same_container = job.output.suffix.lower() == job.video.path.suffix.lower()
            summary.preflight = [] if same_container else streams(job.video, job.output, job.settings)
            return
        with written(job, found, summary, main=True, extras=False) as writers:
            record(job, summary, writers[0].temporary)
        summary.notes[0] = f"{note}: the pictures are re-encoded"


def record_copy(job: Job, summary: Summary) -> None:
    """As :func:`record`, for an output that was copied; without its record it does not stay."""
    try:
        record(job, summary, job.output)
    except BaseException:
        job.output.unlink(missing_ok=True)
        raise


def can_copy(job: Job, summary: Summary) -> bool:
    """Whether the output has exactly the input's pictures when no face is restored."""
    painter = job.painter
    changed = painter.scale != 1 or painter.enhancer is not None or job.settings.frames
    other_container = job.output.suffix.lower() != job.video.path.suffix.lower()
    one_size = not (job.video.resized and other_container)  # containers store one size
    return isinstance(job.video, VideoSource) and not changed and not summary.broken and one_size


def copy_streams(job: Job) -> str:
    """Copy the file, or its streams where the container differs.

    Returns:
        what was copied, in words; empty where the new container does not take these pictures.
    """
    video, output = job.video, job.output
    assert isinstance(video, VideoSource)
    if output.suffix.lower() != video.path.suffix.lower():
        try:
            remux(video, output)
        except UserError:
            return ""
        return "its streams are copied"
    remove_leftovers(output)
    try:
        with AtomicWrite(output) as temporary:
            shutil.copyfile(video.path, temporary)
    except OSError as error:  # its own message names the input
        raise UserError(f"{output}: cannot be written: {error.strerror or error}") from error
    return "the file is copied"


def beside(given: np.ndarray, restored: np.ndarray) -> np.ndarray:
    """Input (resized to the output's size) and output side by side: (H, 2·W + 4, 3)."""
    height, width = restored.shape[:2]
    if given.shape[:2] != restored.shape[:2]:
        given = cv2.resize(given, (width, height), interpolation=cv2.INTER_CUBIC)
    line = np.full((height, DIVIDER, restored.shape[2]), np.iinfo(restored.dtype).max, restored.dtype)
    return np.concatenate([given, line, restored], axis=1)
