"""Datasets and metrics of a user's own: what they return is checked by their base class."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from keep.data.base import ClipDataset, SourceClip
from keep.degradation.resize import Downsample
from keep.metrics.base import Clip, Metric
from keep.utils.errors import UserError

FRAMES = np.zeros((20, 10, 12, 3), np.uint8)


class Own(ClipDataset):
    """``returned(count)`` is what read() returns."""

    returned: Any = staticmethod(lambda count: FRAMES[:count])

    def find(self) -> list[SourceClip]:
        return [SourceClip(f"clip{i}", 20, None) for i in range(3)]

    def read(self, clip: SourceClip, start: int, count: int, step: int) -> np.ndarray:
        return self.returned(count)


def own(returned: Any, root: Path, **options: Any) -> ClipDataset:
    cls = type("Own", (Own,), {"returned": staticmethod(returned)})
    return cls(str(root), size=8, clip_length=5, degradation=(Downsample(),), **options)


def test_frames_as_expected_are_taken(tmp_path: Path) -> None:
    assert own(Own.returned, tmp_path)[0, 0]["gt"].shape == (5, 3, 8, 8)


@pytest.mark.parametrize("on_bad", ["stop", "skip"])
@pytest.mark.parametrize(
    ("returned", "found"),
    [
        (lambda n: FRAMES[: n - 1], "uint8 (4, 10, 12, 3)"),
        (lambda n: FRAMES[: n + 1], "uint8 (6, 10, 12, 3)"),
        (lambda n: FRAMES[:0], "uint8 (0, 10, 12, 3)"),
        (lambda n: FRAMES[:n, :0], "uint8 (5, 0, 12, 3)"),
        (lambda n: FRAMES[:n].transpose(0, 3, 1, 2), "uint8 (5, 3, 10, 12)"),
        (lambda n: FRAMES[:n, ..., 0], "uint8 (5, 10, 12)"),
        (lambda n: FRAMES[:n, ..., :1], "uint8 (5, 10, 12, 1)"),
        (lambda n: np.zeros((n, 10, 12, 4), np.uint8), "uint8 (5, 10, 12, 4)"),
        (lambda n: FRAMES[:n].astype(np.float32), "float32 (5, 10, 12, 3)"),
        (lambda n: FRAMES[:n].astype(np.int64), "int64 (5, 10, 12, 3)"),
        (lambda n: torch.from_numpy(FRAMES[:n]), "Tensor"),
        (lambda n: list(FRAMES[:n]), "list"),
        (lambda n: None, "NoneType"),
    ],
)
def test_other_frames_are_named_with_what_is_expected(returned: Any, found: str, on_bad: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        own(returned, tmp_path, on_bad=on_bad)[0, 0]
    message = str(refused.value)
    assert message.startswith("Own.read of clip clip")
    assert message.endswith(f": returned {found}, expected uint8 (5, H, W, 3) RGB")


def test_so_are_squares_of_another_size(tmp_path: Path) -> None:
    class Squares(Own):
        def read_square(self, clip: SourceClip, start: int, count: int, step: int) -> np.ndarray:
            return FRAMES[:count]

    with pytest.raises(UserError, match=r"Squares.read_square of clip clip\d: .* expected uint8 \(5, 8, 8, 3\)"):
        Squares(str(tmp_path), size=8, clip_length=5)[0, 0]


@pytest.mark.parametrize("found", [None, ["clip"], (SourceClip("a", 20, None),), [SourceClip("a", 20, None), None]])
def test_so_are_clips_that_are_none(found: Any, tmp_path: Path) -> None:
    cls = type("Own", (Own,), {"find": lambda self: found})
    with pytest.raises(UserError, match=r"Own.find: must return a list of SourceClip"):
        cls(str(tmp_path))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (np.zeros(3), "float64 (3,)"),
        (np.zeros((4, 1)), "float64 (4, 1)"),
        (np.zeros(4, np.int64), "int64 (4,)"),
        (np.float64(0), "float64"),
        (0.5, "float"),
        (torch.zeros(4), "Tensor"),
        (None, "NoneType"),
    ],
)
def test_so_are_the_values_of_a_metric(values: Any, found: str) -> None:
    class Own(Metric):
        name, higher_is_better = "Own", False

        def measure(self, output: Clip, target: Clip) -> np.ndarray:
            return values

    clip = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(UserError, match="metric Own: measure returned ") as refused:
        Own()(clip, clip)
    assert str(refused.value) == f"metric Own: measure returned {found}, expected float64 (4,)"
