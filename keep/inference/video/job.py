"""One video from file to file: pass 1, pass 2, summary."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from keep.data.mux import VideoSource
from keep.faces.angles import PlausibleFaces
from keep.faces.detect import Detector
from keep.inference.video.outputs import plots_of, refuse_overwriting
from keep.inference.video.pipeline import DECODED
from keep.inference.video.plots import landmark_figure
from keep.inference.video.preflight import losses, preflight
from keep.inference.video.scan import Scan, as_shown, integer_aspect, scan, scan_aligned
from keep.inference.video.settings import Progress, Settings, Tools, no_progress
from keep.inference.video.signing import check_signing
from keep.inference.video.summary import Summary, damage_note, scan_notes
from keep.inference.video.task import Job, error_level, make_job, reporter
from keep.inference.video.writing import open_writers, record, write_unrestored, written
from keep.utils.clock import peak_memory
from keep.utils.errors import UserError
from keep.utils.logging import log
from keep.utils.overlap import ahead, frames_ahead


def restore_video(
    source: str | Path,
    output: str | Path,
    tools: Tools,
    settings: Settings | None = None,
    progress: Progress | None = None,
    announce: Callable[[str], object] = log.info,
) -> Summary:
    """Restore the faces of one video, in constant memory.

    Args:
        source: a video file, or a folder of frames.
        output: the video to write, or the folder with ``settings.frames``. Either it appears complete or not at all.
        tools: the networks.
        settings: see :class:`Settings`.
        progress: called for every frame of both passes.
        announce: called before pass 1 with each line about what will not come through unchanged.

    Raises:
        UserError: the source cannot be read at all, or the output cannot be written. Problems with the output are
            raised before pass 1 where possible.
    """
    job = make_job(source, Path(output), tools, settings or Settings(), progress or no_progress)
    check(job)
    lines = preflight(job.video, job.output, job.settings) + losses(job.video.layout, job.layout, job.settings)
    for line in lines:
        announce(line)
    start = time.perf_counter()
    found = find_faces(job)
    video, settings = job.video, job.settings
    summary = Summary(
        job.output, found.frames, found.shots, len(found.tracks), lost=video.lost, damaged=video.damaged,
        preflight=lines, notes=scan_notes(found, settings, tools.network.size),
    )  # fmt: skip
    found.choose(settings.auto)
    summary.tracks = len(found.tracks)
    if found.tracks:
        with written(job, found, summary, main=True, extras=True) as writers:
            record(job, summary, writers[0].temporary)
    else:
        write_unrestored(job, found, summary)
    if settings.plots and not settings.aligned:
        for track in found.tracks:
            landmark_figure(track, plots_of(job.output) / f"track{track.id:03d}.png", float(video.fps))
    if summary.broken:
        readable = "can be decoded" if isinstance(video, VideoSource) else "can be read"
        summary.notes.append(damage_note(summary, readable))
    summary.seconds, summary.elapsed = job.clock.seconds, time.perf_counter() - start
    summary.memory, summary.gpu_memory = peak_memory()
    return summary


def check(job: Job) -> None:
    """Raise UserError for a job that would fail later, perhaps after hours."""
    video, output, size, settings = job.video, job.output, job.size, job.settings
    refuse_overwriting([(video.path, output)], settings)
    if settings.aligned and video.height != video.width:
        raise UserError(f"{video.path}: aligned faces are square; these frames are {video.width}×{video.height}")
    if not settings.aligned and job.tools.detector is None:
        raise UserError("there is no face detector; give one, or aligned faces")
    if settings.confidence is not None and error_level(job) is None:
        raise UserError("--confidence needs a network with an error model: docs/confidence.md")
    if settings.sign is not None:
        check_signing(output, settings.sign)
    if video.keeps_fields:
        check_fields(job)
    if min(size) < 2:
        raise UserError(f"{output}: would be {size[1]}×{size[0]} pixels; choose a larger scale")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        for writer in open_writers(job, main=True, extras=True):
            writer.check()
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{output}: cannot be written: {output.parent} is a file, or lies inside one") from error
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror or error}") from error


def check_fields(job: Job) -> None:
    """Raise UserError where the output cannot be interlaced."""
    layout, settings = job.video.layout, job.settings
    same = job.size == (job.video.height, job.video.width) and not job.painter.enhancer and not job.video.rotation
    if settings.codec != "h264" or settings.frames or settings.aligned or not same:
        raise UserError("--deinterlace keep: only H.264 of the input's size, not rotated, can be written interlaced")
    if not layout.plain or layout.full_chroma or layout.gray:
        raise UserError(f"{job.video.path}: --deinterlace keep: only 8-bit 4:2:0 video can stay interlaced")


def find_faces(job: Job) -> Scan:
    """Pass 1."""
    video, tools, settings, clock = job.video, job.tools, job.settings, job.clock
    if isinstance(tools.detector, Detector):  # the first call is slow: it would spoil the estimate of the time left
        tools.detector(np.zeros((video.height, video.width, 3), np.uint8))
    report = reporter(job, "finding faces", video.count())
    aspect = integer_aspect(video.width, video.display_aspect)
    frame_bytes = 3 * video.height * video.width
    with closing(ahead(clock.each("decode", video), frames_ahead(frame_bytes, DECODED, 8))) as frames:
        if settings.aligned:
            return scan_aligned(frames, clock, report)
        assert tools.detector is not None
        shown = (replace(frame, image=as_shown(frame.image, aspect)) for frame in frames)
        found = scan(
            shown, tools.detector, clock, tools.identity, settings.max_gap, settings.sigma, settings.radius,
            settings.min_face, settings.min_frames, settings.detect_every, report, tools.network.size,
            frames_ahead(frame_bytes, 1, 1),
        )  # fmt: skip
    if isinstance(tools.detector, PlausibleFaces):
        found.turned = tools.detector.rejected
    found.tracks = [replace(track, aspect=aspect) for track in found.tracks]
    return found
