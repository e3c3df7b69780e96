"""What a tracker does, and what trackers share."""

import io
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import numpy as np


class Tracker(ABC):
    """Receives the records of a run. It is built in every process, and opened in the first one alone.

    Building it imports its package, so that a missing one is reported before anything is written. After :meth:`open`,
    an error of a tracker ends its records, not the run (:class:`keep.training.records.RunLog`).
    """

    @abstractmethod
    def open(self, folder: Path, last_step: int, options: str) -> None:
        """Start, or continue, the record of a run.

        Args:
            folder: the run's folder; it exists, and its name is the run's.
            last_step: the step that the run resumes from; 0 for a new run.
            options: the resolved options as YAML.

        Raises:
            UserError: a new record cannot be opened.
        """

    @abstractmethod
    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Name → number after this step; numbers may be NaN or infinite."""

    @abstractmethod
    def clip(self, name: str, step: int, frames: np.ndarray, fps: float) -> None:
        """A clip, uint8 RGB (T, H, W, 3), T ≥ 1."""

    @abstractmethod
    def close(self, failed: bool) -> None:
        """Write what is pending; nothing follows.

        Args:
            failed: the run ended before its last step, by an error or a stop signal.
        """


def to_gif(frames: np.ndarray, fps: float) -> bytes:
    """Frames, uint8 (T, H, W, 3), as an endless animation."""
    from PIL import Image

    data = io.BytesIO()
    first, *rest = (Image.fromarray(f) for f in frames)
    first.save(data, "GIF", save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)
    return data.getvalue()
