"""What all steps of one video share."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from keep.data.mux import FrameFolder, Layout, Source, VideoSource
from keep.data.mux.layout import PLAIN, kept, pick_codec
from keep.data.video_io import VIDEO_SUFFIXES
from keep.faces.angles import PlausibleFaces
from keep.faces.detect import Detector
from keep.inference.video.judged import FaceRecord
from keep.inference.video.network import KeepNetwork
from keep.inference.video.pipeline import Painter
from keep.inference.video.scan import AlignedTrack
from keep.inference.video.settings import Progress, Settings, Tools
from keep.utils.clock import Clock


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


def error_level(job: Job) -> float | None:
    """Level of the intervals of the network's error model; None without one."""
    network = job.tools.network
    model = network.options.get("confidence") if isinstance(network, KeepNetwork) else None
    return None if model is None else model.level


def reporter(job: Job, what: str, total: int | None, tracks: Sequence[AlignedTrack] = ()) -> Callable[[int], None]:
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
