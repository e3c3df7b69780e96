"""What was restored, what it cost, and what the user should know."""

from dataclasses import dataclass, field
from pathlib import Path

from keep.data.mux import Source
from keep.faces.align import scale_of
from keep.inference.video.scan import Scan
from keep.inference.video.settings import Settings


@dataclass
class Summary:
    """The result of one video.

    Attributes:
        output: the file or folder written.
        frames: frames written.
        shots: number of shots.
        tracks: number of restored tracks: one person in one shot each.
        faces: restored faces, over all frames.
        lost: frames that could not be decoded.
        damaged: frames decoded from damaged data.
        seconds: part → seconds; parts run at the same time.
        elapsed: seconds of the whole run.
        memory: peak memory of the process, in MiB.
        gpu_memory: peak memory of tensors on the GPU, in MiB.
        preflight: what did not come through unchanged: what was said before pass 1, without that for a copy.
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
    elapsed: float = 0.0
    memory: float = 0.0
    gpu_memory: float = 0.0
    preflight: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def broken(self) -> bool:
        """Whether the input was damaged."""
        return bool(self.lost or self.damaged)

    def lines(self, notes: bool = True) -> list[str]:
        """The summary as text: counts, costs (parts of 0.05 s and more), and the notes."""
        parts = sorted((part for part in self.seconds.items() if part[1] >= 0.05), key=lambda part: -part[1])
        memory = f"{self.memory:.0f} MiB" + (f", GPU {self.gpu_memory:.0f} MiB" if self.gpu_memory else "")
        return [
            f"{self.output}: {count(self.frames, 'frame')}, {count(self.shots, 'shot')}, "
            f"{count(self.tracks, 'track')}, {count(self.faces, 'face')} in {self.elapsed:.1f} s "
            f"({self.frames / max(self.elapsed, 1e-9):.1f} frames/s)",
            *(["  time: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in parts)] if parts else []),
            f"  peak memory: {memory}",
            *(f"  {note}" for note in self.notes if notes),
        ]


def count(number: int, what: str) -> str:
    """``1 frame``, ``2 frames``."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def scan_notes(found: Scan, settings: Settings, size: int) -> list[str]:
    """What pass 1 skipped, and faces larger than the network's crops of ``size`` pixels."""
    notes = []
    if not found.tracks:
        skipped = found.small or found.short
        notes.append("no face is large enough and visible for long enough" if skipped else "no face was found")
    if found.small:
        notes.append(
            f"{count(found.small, 'track')} of faces below {settings.min_face:g} px kept as in the input (--min-face)"
        )
    if found.short:
        notes.append(
            f"{count(found.short, 'track')} shorter than {settings.min_frames} frames kept as in the input "
            "(--min-frames)"
        )
    if found.turned:
        notes.append(
            f"{count(found.turned, 'detection')} whose points are not those of an upright face kept as in the input "
            "(--any-angle)"
        )
    notes += sharp_notes(found, settings.auto)
    placed = [
        track for track in found.tracks if track.points is not None and not (settings.auto and track.strength == 0)
    ]
    enlarged = [1 / min(scale_of(track.matrix(i, size)) for i in range(len(track.frames))) for track in placed]
    if large := [factor for factor in enlarged if factor > 1.05]:
        notes.append(
            f"{count(len(large), 'track')} of faces larger than the network's {size} px: restored at {size} px and "
            f"enlarged up to ×{max(large):.1f}"
        )
    return notes


def source_notes(video: Source) -> list[str]:
    """What was done about time stamps that jump and sizes that change within the input."""
    notes = []
    if video.jumps:
        notes.append(f"the time stamps jump {count(video.jumps, 'time')} (joined recordings): carried on without a gap")
    if video.resized:
        sizes = ", ".join(f"{count(n, 'frame')} of {width}×{height}" for (width, height), n in video.resized.items())
        notes.append(f"the size changes: {sizes} scaled to {video.width}×{video.height}, the size of the first frame")
    return notes


def sharp_notes(found: Scan, auto: bool) -> list[str]:
    """Faces that are about as sharp already as the network can make them."""
    left = sum(track.strength == 0 for track in found.tracks)
    between = sum(0 < track.strength < 1 for track in found.tracks)
    if not left + between:
        return []
    if auto:
        return [f"--auto: {count(left, 'track')} of sharp faces kept as in the input, {between} blended with it"]
    return [
        f"{count(left + between, 'track')} of faces that are sharp already: restored, they may look worse "
        f"(--auto leaves {left} and blends {between})"
    ]


def damage_note(summary: Summary, what: str) -> str:
    """How much of the input was lost. ``what`` continues the number of frames: ``can be decoded``."""
    notes = [f"{count(summary.lost, 'frame')} lost ({count(summary.frames, 'frame')} {what})"]
    if summary.damaged:
        notes.append(f"{count(summary.damaged, 'frame')} decoded from damaged data")
    return "the input is broken: " + ", ".join(notes)
