import sys

import cv2
import numpy as np
import pytest

from keep.utils import figures
from keep.utils.errors import UserError


def clip(length=4, height=32, width=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (length, height, width, 3), dtype=np.uint8)


def read(path):
    image = cv2.imread(str(path))
    assert image is not None
    return image[..., ::-1]


@pytest.mark.parametrize("length", [1, 5])
def test_gain_figure(tmp_path, length):
    gains = np.random.default_rng(0).random((length, 4, 4))
    gains[0] = np.nan
    figures.gain_figure(gains, clip(length), tmp_path / "gain.png", columns=3)
    assert read(tmp_path / "gain.png").std() > 5


def test_gain_figure_needs_a_map_for_every_frame(tmp_path):
    with pytest.raises(UserError, match="T = 4"):
        figures.gain_figure(np.zeros((3, 2, 2)), clip(4), tmp_path / "gain.png")


def test_loss_curves(tmp_path):
    steps = list(range(100))
    series = {
        "stage I": {"l1": (steps, np.exp(-np.arange(100) / 30)), "gan": (steps, [float("nan"), *([0.5] * 99)])},
        "stage II": {"gan": (steps, np.sin(np.arange(100)))},
        "stage III": {},
    }
    figures.loss_curves(series, tmp_path / "loss.png")
    assert read(tmp_path / "loss.png").std() > 5


def test_no_curves_are_refused(tmp_path):
    with pytest.raises(UserError, match="at least one stage"):
        figures.loss_curves({}, tmp_path / "loss.png")


def test_the_suffix_sets_the_format(tmp_path):
    figures.loss_curves({"a": {"l1": ([0, 1], [1, 2])}}, tmp_path / "loss.svg")
    assert "<svg" in (tmp_path / "loss.svg").read_text()
    with pytest.raises(UserError, match="nonsense"):
        figures.loss_curves({"a": {"l1": ([0, 1], [1, 2])}}, tmp_path / "loss.nonsense")
    assert [p.name for p in tmp_path.iterdir()] == ["loss.svg"]


def test_nothing_global_is_touched(tmp_path):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    pyplot = "matplotlib.pyplot" in sys.modules
    figures.loss_curves({"a": {"l1": ([0, 1], [1, 2])}}, tmp_path / "loss.png")
    figures.gain_figure(np.zeros((2, 2, 2)), clip(2), tmp_path / "gain.png")
    assert dict(mpl.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == pyplot


def test_moving_average_keeps_a_constant():
    np.testing.assert_allclose(figures._moving_average(np.full(200, 3.0)), 3.0)
