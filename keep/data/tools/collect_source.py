"""The result of collecting from one video."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Source:
    """One video and its result.

    Attributes:
        path: the video file.
        name: name of its folder below OUT/clips.
        clips: the kept clips, one dict each.
        rejects: the rejected tracks and clips, one dict each: step, reason, position.
        problem: why the video could not be read, or None.
        shots: number of shots.
        tracks: number of face tracks.
        frames: number of frames.
    """

    path: Path
    name: str
    clips: list[dict[str, Any]] = field(default_factory=list)
    rejects: list[dict[str, Any]] = field(default_factory=list)
    problem: str | None = None
    shots: int = 0
    tracks: int = 0
    frames: int = 0

    def reject(self, step: str, reason: str, **where: Any) -> None:
        self.rejects.append({"step": step, "reason": reason, **where})
