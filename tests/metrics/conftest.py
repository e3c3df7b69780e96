"""Stand-ins for face networks, and real networks where they are beside the checkout."""

import numpy as np
import pytest
import torch


class Eyes:
    """A detector that reads the frame: a face is where the first red value is not 0; it counts its calls."""

    name = "eyes"

    def __init__(self) -> None:
        self.calls = 0

    def to(self, device):
        return self

    def __call__(self, frame: np.ndarray) -> list:
        from keep.faces.detect import Face

        self.calls += 1
        if frame[0, 0, 0] == 0:
            return []
        return [Face(np.array([1, 2, 5, 6], np.float32), np.full((5, 2), 3, np.float32), 0.9)]


class Table:
    """An identity or landmark network: what a frame's first red value stands for; it counts its calls."""

    name = "table"
    measure = "cosine"

    def __init__(self, answers: dict[int, object]) -> None:
        self.answers = {k: np.array(v, np.float32) for k, v in answers.items()}
        self.calls = 0

    def to(self, device):
        return self

    def __call__(self, frames: np.ndarray, where: np.ndarray) -> np.ndarray:
        self.calls += 1
        found = np.stack([self.answers[int(frame[0, 0, 0])] for frame in frames])
        found[np.isnan(where).any(axis=tuple(range(1, where.ndim)))] = np.nan
        return found


@pytest.fixture
def eyes() -> Eyes:
    return Eyes()


@pytest.fixture
def table():
    return Table


@pytest.fixture
def reds():
    """(red values) → a clip of 8×8 frames, uint8 (T, 3, 8, 8)."""

    def make(*values: int) -> torch.Tensor:
        clip = torch.zeros(len(values), 3, 8, 8, dtype=torch.uint8)
        clip[:, 0] = torch.tensor(values, dtype=torch.uint8)[:, None, None]
        return clip

    return make
