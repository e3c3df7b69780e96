import numpy as np
import pytest
import torch

from keep.config.registry import METRICS
from keep.metrics import Clip, Metric, build_metrics
from keep.utils.errors import UserError


class Red(Metric):
    """The mean red of a frame's output less the target's; NaN where the target has none."""

    name, higher_is_better = "red", False

    def __init__(self):
        self.measured = 0

    def measure(self, output, target):
        self.measured += 1
        a, b = (c.frames[:, 0].double().mean((1, 2)).numpy() for c in (output, target))
        return np.where(b == 0, np.nan, a - b)


def test_tensors_and_clips_give_the_same(reds):
    output, target = reds(9, 5, 7), reds(1, 0, 3)
    values = Red()(output, target)
    np.testing.assert_array_equal(values, [8, np.nan, 4])
    np.testing.assert_array_equal(Red()(Clip(output), Clip(target)), values)


def test_score_and_missing_leave_out_what_is_not_there():
    metric = Red()
    assert metric.score(np.array([8, np.nan, 4])) == 6
    assert metric.missing(np.array([8, np.nan, 4])) == 1
    assert np.isnan(metric.score(np.full(3, np.nan)))
    assert metric.score(np.array([np.inf, 4])) == np.inf
    metric.first = 1  # a metric of neighbours: its first frame has none by nature
    assert metric.missing(np.array([np.nan, np.nan, 4])) == 1


def test_a_pair_of_clips_is_measured_once(reds):
    metric, output, target = Red(), Clip(reds(2)), Clip(reds(1))
    metric(output, target)
    metric(output, target)
    assert metric.measured == 1
    assert metric(output, Clip(reds(2))) == 0
    assert metric.measured == 2


def test_a_clip_remembers_by_the_key_alone(reds):
    clip, made = Clip(reds(1)), []
    for key in ("a", "a", ("a", 1), "a"):
        clip.once(key, lambda: made.append(1))
    assert len(made) == 2


def test_images_are_for_opencv(reds):
    clip = Clip(torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).view(2, 3, 4, 5))
    assert clip.images.shape == (2, 4, 5, 3)
    assert clip.images.flags.c_contiguous
    np.testing.assert_array_equal(clip.images[1, 2, 3], clip.frames[1, :, 2, 3])
    assert clip.floats(0, 2).min() == -1


@pytest.mark.parametrize(
    ("output", "target", "message"),
    [
        (torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 9), "differ in shape"),
        (torch.zeros(2, 3, 8, 8), torch.zeros(3, 3, 8, 8), "differ in shape"),
        (torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8), "uint8"),
        (torch.zeros(2, 1, 8, 8).byte(), torch.zeros(2, 1, 8, 8).byte(), r"\(T, 3, H, W\)"),
        (torch.zeros(0, 3, 8, 8).byte(), torch.zeros(0, 3, 8, 8).byte(), "at least one frame"),
    ],
)
def test_bad_clips(output, target, message):
    with pytest.raises(UserError, match=message):
        Red()(output, target)


def test_equal_options_are_built_once():
    psnr, sigma, ssim = build_metrics([METRICS.spec(s) for s in ("PSNR", {"type": "Sigma", "of": "PSNR"}, "SSIM")])
    assert sigma.of is psnr
    assert ssim is not psnr


def test_every_column_has_a_name_of_its_own():
    with pytest.raises(UserError, match="two columns are named PSNR"):
        build_metrics([METRICS.spec("PSNR"), METRICS.spec("PSNR")])
