"""One video from file to file: pass 1, pass 2, summary."""

import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from keep.data.mux import (
    Codec,
    FrameFolder,
    FrameWriter,
    Source,
    TimedFrame,
    VideoSource,
    VideoWriter,
    remux,
)
from keep.data.video_io import VIDEO_SUFFIXES
from keep.faces.align import scale_of
from keep.faces.parse import Parser
from keep.inference.video.enhance import Enhancer
from keep.inference.video.network import Network
from keep.inference.video.pipeline import Painter, restore_faces
from keep.inference.video.plots import landmark_figure
from keep.inference.video.scan import AlignedTrack, Scan, as_shown, scan, scan_aligned, whole_aspect
from keep.utils.clock import Clock, peak_memory
from keep.utils.errors import UserError
from keep.utils.io import AtomicWrite, remove_leftovers

DIVIDER = 4  # px between the halves of a comparison


@dataclass(frozen=True)
class Settings:
    """How a video is restored. ``docs/restore.md`` explains each at length.

    Attributes:
        aligned: the frames are aligned faces already: no detection, no pasting.
        max_gap: frames without a detection that are bridged.
        sigma: of eq. (10), in frames; 0 leaves the landmarks as detected.
        radius: of eq. (10), in frames.
        min_face: smallest face that is restored, in pixels of the frame.
        min_frames: shortest track that is restored.
        match_color: give restored faces the coarse colours of the input.
        scale: size of the output over the input's; None: that of the background model, else 1.
        batch: faces of the same frames that are computed side by side.
        codec: of the output.
        crf: quality of H.264 and H.265, lower is better.
        preset: speed against size of H.264 and H.265.
        fps: frame rate of a folder of frames.
        frames: write a folder of PNG files instead of a video; so it is for a folder of frames and a folder as output.
        compare: write a side-by-side video too.
        plots: write a figure of each track's landmarks too.
    """

    aligned: bool = False
    max_gap: int = 10
    sigma: float = 5
    radius: int = 20
    min_face: float = 24
    min_frames: int = 5
    match_color: bool = False
    scale: float | None = None
    batch: int = 4
    codec: Codec = "h264"
    crf: int = 18
    preset: str = "medium"
    fps: float = 25
    frames: bool = False
    compare: bool = False
    plots: bool = False


@dataclass
class Tools:
    """The networks that a run uses; all but the first may be missing.

    Attributes:
        network: restores aligned crops.
        detector: frame → faces; called for when the first video needs it.
        identity: tells people apart.
        parser: tells face from what covers it.
        enhancer: enlarges whole frames.
    """

    network: Network
    detector: Callable[[np.ndarray], list[Any]] | None = None
    identity: Any | None = None
    parser: Parser | None = None
    enhancer: Enhancer | None = None


@dataclass
class Summary:
    """What was done.

    Attributes:
        output: the file or folder written.
        frames: frames written.
        shots: number of shots.
        tracks: people restored, counted anew in every shot.
        faces: faces restored, over all frames.
        lost: frames that could not be decoded.
        damaged: frames decoded from damaged data.
        seconds: part → seconds.
        memory: peak of the process, in MiB.
        gpu_memory: peak of the tensors on the GPU, in MiB.
        notes: what the user should know.
    """

    output: Path
    frames: int = 0
    shots: int = 0
    tracks: int = 0
    faces: int = 0
    lost: int = 0
    damaged: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    memory: float = 0.0
    gpu_memory: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def broken(self) -> bool:
        """Whether the input was damaged."""
        return bool(self.lost or self.damaged)

    def lines(self, notes: bool = True) -> list[str]:
        """In words: what was done, what it cost (parts of 0.05 s and more), and the notes."""
        total = sum(self.seconds.values())
        parts = sorted((part for part in self.seconds.items() if part[1] >= 0.05), key=lambda part: -part[1])
        memory = f"{self.memory:.0f} MiB" + (f", GPU {self.gpu_memory:.0f} MiB" if self.gpu_memory else "")
        return [
            f"{self.output}: {_count(self.frames, 'frame')}, {_count(self.shots, 'shot')}, "
            f"{_count(self.tracks, 'track')}, {_count(self.faces, 'face')} in {total:.1f} s "
            f"({self.frames / max(total, 1e-9):.1f} frames/s)",
            *(["  time: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in parts)] if parts else []),
            f"  peak memory: {memory}",
            *(f"  {note}" for note in self.notes if notes),
        ]


class Progress(Protocol):
    """Told of every frame of a pass: what is done, how many of how many (None: not known), and the tracks in work."""

    def __call__(self, what: str, done: int, total: int | None, tracks: list[int]) -> None: ...


def restore_video(
    source: str | Path,
    output: str | Path,
    tools: Tools,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Restore the faces of one video, in constant memory.

    Args:
        source: a video file, or a folder of frames.
        output: the video to write, or the folder with ``settings.frames``. It appears whole or not at all.
        tools: the networks.
        settings: see :class:`Settings`.
        progress: called for every frame of both passes.

    Raises:
        UserError: the source cannot be read at all, or the output cannot be written. What can be known of the output
            before the first pass is told before it.
    """
    settings, output = settings or Settings(), Path(output)
    video = open_source(source, settings.fps)
    if isinstance(video, FrameFolder) and output.suffix.lower() not in VIDEO_SUFFIXES:
        settings = replace(settings, frames=True)
    refuse_overwriting([(video.path, output)], settings)
    if settings.aligned and video.height != video.width:
        raise UserError(f"{source}: aligned faces are square; these frames are {video.width}×{video.height}")
    if not settings.aligned and tools.detector is None:
        raise UserError("there is no face detector; give one, or aligned faces")
    enhancer = None if settings.aligned else tools.enhancer
    scale = 1.0 if settings.aligned else settings.scale or (enhancer.scale if enhancer else 1.0)
    painter = Painter(scale, enhancer, tools.parser, settings.match_color)
    side = tools.network.size
    size = (side, side) if settings.aligned else painter.size(video.height, video.width)
    _check_output(video, output, size, settings)
    clock, tell = Clock(), progress or _silent
    found = find_faces(video, tools, settings, clock, tell)
    summary = Summary(
        output, found.frames, found.shots, len(found.tracks), notes=_notes(found, settings, tools.network)
    )
    lost = summary.lost, summary.damaged = video.lost, video.damaged
    clean = scale == 1 and enhancer is None and not settings.frames and not any(lost)

    def write(*kinds: str) -> None:
        writers = [_open_writer(kind, video, output, size, settings) for kind in kinds]
        _write(video, found, summary, writers, painter, tools, settings, clock, tell)

    both = ("main", "comparison") if settings.compare else ("main",)
    if found.tracks:
        write(*both)
    elif clean and isinstance(video, VideoSource):
        write(*both[1:])
        how = _copy(video, output, summary)
        if not how:
            write("main")
        summary.notes[0] += f": the content is unchanged, {how}" if how else ": the pictures are re-encoded"
    else:
        write(*both)
        summary.notes[0] += ": nothing is restored" + ("" if settings.frames else ", the pictures are re-encoded")
    if settings.plots and not settings.aligned:
        for track in found.tracks:
            landmark_figure(track, plots_of(output) / f"track{track.id:03d}.png", float(video.fps))
    if summary.broken:
        what = "can be decoded" if isinstance(video, VideoSource) else "can be read"
        notes = [f"{_count(video.lost, 'frame')} lost ({_count(summary.frames, 'frame')} {what})"]
        notes += [f"{_count(video.damaged, 'frame')} decoded from damaged data"] if video.damaged else []
        summary.notes.append("the input is broken: " + ", ".join(notes))
    summary.seconds = clock.seconds
    summary.memory, summary.gpu_memory = peak_memory()
    return summary


def open_source(path: str | Path, fps: float = 25) -> Source:
    """A video file, or a folder of frames."""
    return FrameFolder(path, fps) if Path(path).is_dir() else VideoSource(path)


def comparison_of(output: Path) -> Path:
    """Where the side-by-side video of an output goes."""
    if output.suffix.lower() in VIDEO_SUFFIXES:
        return output.with_name(f"{output.stem}.compare{output.suffix}")
    return output.with_name(f"{output.name}.compare.mkv")


def plots_of(output: Path) -> Path:
    """The folder of its tracks' figures."""
    return output.with_name(f"{output.stem if output.suffix.lower() in VIDEO_SUFFIXES else output.name}.plots")


def refuse_overwriting(pairs: Iterable[tuple[Path, Path]], settings: Settings) -> None:
    """Look through all files that a run over (input, output) pairs writes.

    Raises:
        UserError: one of them is an input, or would be written twice.
    """
    pairs = list(pairs)
    inputs = {source.resolve() for source, _ in pairs}
    written: dict[Path, Path] = {}
    for source, output in pairs:
        extra = [comparison_of(output)] * settings.compare + [plots_of(output)] * settings.plots
        for path in (output, *extra):
            real = path.resolve()
            if real in inputs:
                which = "the input itself" if real == source.resolve() else "an input"
                raise UserError(f"{path}: is {which}; name another output")
            if real in written:
                raise UserError(f"{path}: would be written for {written[real]} and for {source}; restore them apart")
            written[real] = source


def find_faces(video: Source, tools: Tools, settings: Settings, clock: Clock, tell: Progress) -> Scan:
    """Pass 1."""
    frames = _told(clock.each("decode", video), "finding faces", video.expected, tell)
    if settings.aligned:
        return scan_aligned(frames, clock)
    assert tools.detector is not None
    aspect = whole_aspect(video.width, video.display_aspect)
    shown = (replace(frame, image=as_shown(frame.image, aspect)) for frame in frames)
    found = scan(
        shown, tools.detector, clock, tools.identity, settings.max_gap, settings.sigma, settings.radius,
        settings.min_face, settings.min_frames,
    )  # fmt: skip
    found.tracks = [replace(track, aspect=aspect) for track in found.tracks]
    return found


def _open_writer(
    kind: str, video: Source, output: Path, size: tuple[int, int], settings: Settings
) -> FrameWriter | VideoWriter:
    """The writer of the restored frames (``main``) or of the ``comparison``."""
    encoding = {"codec": settings.codec, "crf": settings.crf, "preset": settings.preset}
    if kind == "comparison":
        return VideoWriter(comparison_of(output), video, (size[0], 2 * size[1] + DIVIDER), **encoding)
    return FrameWriter(output) if settings.frames else VideoWriter(output, video, size, **encoding)


def _check_output(video: Source, output: Path, size: tuple[int, int], settings: Settings) -> None:
    """Refuse at once what could not be written after hours."""
    if min(size) < 2:
        raise UserError(f"{output}: would be {size[1]}×{size[0]} pixels; choose a larger scale")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        for kind in ("main", "comparison")[: 1 + settings.compare]:
            _open_writer(kind, video, output, size, settings).check()
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{output}: cannot be written: {output.parent} is, or lies in, a file") from error
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror or error}") from error


def _write(
    video: Source,
    found: Scan,
    summary: Summary,
    writers: list[FrameWriter | VideoWriter],
    painter: Painter,
    tools: Tools,
    settings: Settings,
    clock: Clock,
    tell: Progress,
) -> None:
    """Pass 2."""
    if not writers:
        return
    frames = _told(clock.each("decode", video), "restoring", found.frames, tell, found.tracks)
    summary.frames = summary.faces = 0
    comparison = comparison_of(summary.output)
    with ExitStack() as stack:
        for writer in writers:
            stack.enter_context(writer)
        for waiting in restore_faces(frames, found.tracks, tools.network, clock, settings.batch):
            image = painter.paint(waiting, clock)
            with clock("encode"):
                for writer in writers:
                    pair = writer.path == comparison
                    writer.write(beside(waiting.frame.image, image) if pair else image, waiting.frame)
            summary.frames += 1
            summary.faces += len(waiting.faces)
    summary.notes += [
        f"left out: {what}" for writer in writers if writer.path != comparison for what in writer.left_out
    ]


def beside(given: np.ndarray, restored: np.ndarray) -> np.ndarray:
    """Input (enlarged to the output's size) and output, (H, 2·W + 4, 3)."""
    height, width = restored.shape[:2]
    if given.shape != restored.shape:
        given = cv2.resize(given, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.concatenate([given, np.full((height, DIVIDER, 3), 255, np.uint8), restored], axis=1)


def _told(
    frames: Iterator[TimedFrame], what: str, total: int | None, tell: Progress, tracks: list[AlignedTrack] | None = None
) -> Iterator[TimedFrame]:
    """``frames``, each told of when it comes."""
    upcoming = deque(sorted(tracks or (), key=lambda track: int(track.frames[0])))
    here: list[AlignedTrack] = []
    for frame in frames:
        while upcoming and upcoming[0].frames[0] <= frame.index:
            here.append(upcoming.popleft())
        here = [track for track in here if frame.index <= track.frames[-1]]
        tell(what, frame.index + 1, total, [track.id for track in here])
        yield frame


def _notes(found: Scan, settings: Settings, network: Network) -> list[str]:
    notes = []
    if not found.tracks:
        why = "no face is large enough and seen for long enough" if found.small or found.short else "no face was found"
        notes.append(why)
    if found.small:
        notes.append(
            f"{_count(found.small, 'track')} of faces below {settings.min_face:g} px left as in the input (--min-face)"
        )
    if found.short:
        notes.append(
            f"{_count(found.short, 'track')} shorter than {settings.min_frames} frames left as in the input "
            "(--min-frames)"
        )
    zoom = [1 / min(scale_of(t.matrix(i, network.size)) for i in range(len(t.frames))) for t in _placed(found)]
    if large := [z for z in zoom if z > 1.05]:
        notes.append(
            f"{_count(len(large), 'track')} of faces larger than the network's {network.size} px: restored at "
            f"{network.size} px and enlarged up to ×{max(large):.1f}"
        )
    return notes


def _placed(found: Scan) -> list[AlignedTrack]:
    return [track for track in found.tracks if track.points is not None]


def _copy(video: VideoSource, output: Path, summary: Summary) -> str:
    """The file as it is, or its streams in another container; what was done, empty where the container takes no such
    pictures."""
    if output.suffix.lower() != video.path.suffix.lower():
        try:
            summary.notes += [f"left out: {what}" for what in remux(video, output)]
        except UserError:
            return ""
        return "its streams are copied"
    remove_leftovers(output)
    try:
        with AtomicWrite(output) as temporary:
            shutil.copyfile(video.path, temporary)
    except OSError as error:  # it would name the input
        raise UserError(f"{output}: cannot be written: {error.strerror or error}") from error
    return "the file is copied"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _silent(what: str, done: int, total: int | None, tracks: list[int]) -> None:
    pass
