"""One video from file to file: pass 1, pass 2, summary."""

import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from keep.data.mux import FrameFolder, FrameWriter, Layout, Source, VideoSource, VideoWriter, remux
from keep.data.mux.layout import PLAIN, kept, pick_codec
from keep.data.video_io import VIDEO_SUFFIXES
from keep.faces.angles import PlausibleFaces
from keep.faces.detect import Detector
from keep.inference.video.judged import FaceRecord, error_frame, explained, overlay_frame
from keep.inference.video.network import KeepNetwork
from keep.inference.video.outputs import comparison_of, map_of, plots_of, record_of, refuse_overwriting
from keep.inference.video.pipeline import Painter, WaitingFrame, decoded_ahead, painted
from keep.inference.video.plots import landmark_figure
from keep.inference.video.preflight import losses, preflight
from keep.inference.video.provenance import STATEMENT, UNCHANGED, origin, write_record
from keep.inference.video.scan import AlignedTrack, Scan, as_shown, integer_aspect, scan, scan_aligned
from keep.inference.video.settings import Progress, Settings, Tools, no_progress
from keep.inference.video.signing import check_signing, sign
from keep.inference.video.summary import Summary, count, damage_note, scan_notes, source_notes
from keep.utils.clock import Clock, peak_memory
from keep.utils.errors import UserError
from keep.utils.io import AtomicWrite, remove_leftovers
from keep.utils.logging import log

DIVIDER = 4  # px between the halves of a comparison


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
        write(job, found, summary, main=True, extras=True)
    else:
        write_unrestored(job, found, summary)
    record(job, summary)
    if settings.plots and not settings.aligned:
        for track in found.tracks:
            landmark_figure(track, plots_of(job.output) / f"track{track.id:03d}.png", float(video.fps))
    if summary.broken:
        readable = "can be decoded" if isinstance(video, VideoSource) else "can be read"
        summary.notes.append(damage_note(summary, readable))
    summary.seconds, summary.elapsed = job.clock.seconds, time.perf_counter() - start
    summary.memory, summary.gpu_memory = peak_memory()
    return summary


@dataclass(frozen=True)
class Job:
    """What all steps of one video share.

    Attributes:
        video: the input.
        output: the file or folder to write.
        size: (height, width) of the output.
        layout: what the output stores of each pixel.
        painter: puts restored faces into their frames.
        tools: the networks.
        settings: how to restore.
        progress: called for every frame of both passes.
        clock: seconds of each part.
        judged: what the error model says of the faces.
    """

    video: Source
    output: Path
    size: tuple[int, int]
    layout: Layout
    painter: Painter
    tools: Tools
    settings: Settings
    progress: Progress
    clock: Clock = field(default_factory=Clock)
    judged: FaceRecord = field(default_factory=FaceRecord)


def make_job(source: str | Path, output: Path, tools: Tools, settings: Settings, progress: Progress) -> Job:
    """Open the input. The output of a folder of frames is a folder of frames, unless it is named as a video."""
    if Path(source).is_dir():
        video = FrameFolder(source, settings.fps)
    else:
        video = VideoSource(source, settings.deinterlace, settings.double_rate)
    if isinstance(video, FrameFolder) and output.suffix.lower() not in VIDEO_SUFFIXES:
        settings = replace(settings, frames=True)
    enhancer = None if settings.aligned else tools.enhancer
    scale = 1.0 if settings.aligned else settings.scale or (enhancer.scale if enhancer else 1.0)
    plain = settings.aligned or enhancer is not None  # networks compute 8-bit RGB
    given = replace(PLAIN, gray=video.layout.gray) if plain else video.layout
    settings = replace(settings, codec=pick_codec(settings.codec, given))
    layout = kept(given, settings.codec, settings.frames)
    convert = None if layout.plain and not video.keeps_fields else video.from_display
    painter = Painter(scale, enhancer, tools.parser, settings.match_color, layout.gray, convert)
    side = tools.network.size
    size = (side, side) if settings.aligned else painter.size(video.height, video.width)
    if isinstance(tools.detector, Detector):
        tools = replace(tools, detector=PlausibleFaces(tools.detector, settings.any_angle))
    return Job(video, output, size, layout, painter, tools, settings, progress)


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
    report = _reporter(job, "finding faces", video.count())
    aspect = integer_aspect(video.width, video.display_aspect)
    with closing(decoded_ahead(clock.each("decode", video), video.height, video.width)) as frames:
        if settings.aligned:
            return scan_aligned(frames, clock, report)
        assert tools.detector is not None
        shown = (replace(frame, image=as_shown(frame.image, aspect)) for frame in frames)
        found = scan(
            shown, tools.detector, clock, tools.identity, settings.max_gap, settings.sigma, settings.radius,
            settings.min_face, settings.min_frames, settings.detect_every, report, tools.network.size,
        )  # fmt: skip
    if isinstance(tools.detector, PlausibleFaces):
        found.turned = tools.detector.rejected
    found.tracks = [replace(track, aspect=aspect) for track in found.tracks]
    return found


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


def write(job: Job, found: Scan, summary: Summary, main: bool, extras: bool) -> None:
    """Pass 2: restore the faces found, and write the frames (``main``), what was asked for beside them, or both."""
    if not (main or (extras and (job.settings.compare or job.settings.confidence is not None))):
        return
    report = _reporter(job, "restoring", found.frames, found.tracks)
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
    if main:
        summary.notes += source_notes(job.video)
        if refused := writers[0].refused:
            summary.notes.append(f"{count(refused, 'packet')} of sound or subtitles damaged in the input, and left out")


def shown_by(writer: FrameWriter | VideoWriter, job: Job, waiting: WaitingFrame, image: np.ndarray) -> np.ndarray:
    """The picture of a frame that a writer gets; ``image`` is the restored one."""
    confidence = job.settings.confidence
    if job.settings.compare and writer.path == comparison_of(job.output):
        return beside(job.painter.given(waiting.frame), image)
    if confidence is not None and writer.path == map_of(job.output, confidence):
        draw = overlay_frame if confidence == "overlay" else error_frame
        return draw(image, waiting, job.painter.scale)
    return image


def record(job: Job, summary: Summary) -> None:
    """Sign the output, and write what is known of its origin and of its faces, where that was asked for."""
    settings = job.settings
    if settings.confidence is None and settings.sign is None:
        return
    about = origin(job.video.path, job.tools.about, asdict(settings), STATEMENT if summary.tracks else UNCHANGED)
    if settings.sign is not None and summary.tracks:
        sign(job.output, settings.sign, about)
    elif settings.sign is not None:
        summary.notes.append("not signed: no face was restored")
    if settings.confidence is None:
        return
    level = error_level(job)
    assert level is not None
    content = {**about, "meaning": explained(level), "faces": job.judged.plain()}
    write_record(record_of(job.output), job.output, content)
    summary.notes += job.judged.notes()


def error_level(job: Job) -> float | None:
    """Level of the intervals of the network's error model; None without one."""
    network = job.tools.network
    model = network.options.get("confidence") if isinstance(network, KeepNetwork) else None
    return None if model is None else model.level


def write_unrestored(job: Job, found: Scan, summary: Summary) -> None:
    """Write the output of a video without faces to restore: a copy where possible, else encoded again."""
    note = summary.notes[0]
    if not can_copy(job, summary):
        write(job, found, summary, main=True, extras=True)
        encoded = "" if job.settings.frames else ", the pictures are re-encoded"
        summary.notes[0] = f"{note}: nothing is restored{encoded}"
        return
    write(job, found, summary, main=False, extras=True)
    if copied := copy_streams(job):
        summary.notes[0] = f"{note}: the content is unchanged, {copied}"
    else:
        write(job, found, summary, main=True, extras=False)
        summary.notes[0] = f"{note}: the pictures are re-encoded"


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


def _reporter(job: Job, what: str, total: int | None, tracks: Sequence[AlignedTrack] = ()) -> Callable[[int], None]:
    """A function that reports to ``job.progress`` that the frame of a number, ascending, is done."""
    upcoming = deque(sorted(tracks, key=lambda track: int(track.frames[0])))
    active: list[AlignedTrack] = []

    def report(index: int) -> None:
        nonlocal active
        while upcoming and upcoming[0].frames[0] <= index:
            active.append(upcoming.popleft())
        active = [track for track in active if index <= track.frames[-1]]
        job.progress(what, index + 1, total, [track.id for track in active])

    return report
