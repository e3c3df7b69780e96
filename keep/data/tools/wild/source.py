"""What came of one video."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Source:
    """One video: what came of it.

    Attributes:
        path: of the video.
        name: of its folder below OUT/clips.
        clips: what was kept, one dict a clip.
        rejects: what was not, one dict each: step, reason, and where.
        problem: why the video could not be read, or None.
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
