from typing import Any

import numpy as np
import pytest
import torch

from keep.degradation.resize import Downsample, Upsample, bicubic_upsample, upsample
from keep.utils.errors import UserError


def test_area_is_the_mean_of_each_block() -> None:
    clip = np.random.default_rng(0).uniform(0, 255, (2, 8, 12, 3)).astype(np.float32)
    expected = clip.reshape(2, 2, 4, 3, 4, 3).mean((2, 4))
    np.testing.assert_allclose(Downsample(4).apply(clip, "area"), expected, rtol=1e-4)


@pytest.mark.parametrize("mode", ["area", "bilinear", "bicubic"])
def test_every_mode_keeps_a_ramp_in_place(mode: str) -> None:
    ramp = np.broadcast_to(np.arange(64, dtype=np.float32)[None, None, :, None], (1, 16, 64, 3))
    small = Downsample(4).apply(np.ascontiguousarray(ramp), mode)
    assert small.shape == (1, 4, 16, 3)
    np.testing.assert_allclose(small[0, 0, 1:-1, 0], np.arange(64).reshape(16, 4).mean(1)[1:-1], atol=1e-3)


def test_modes_are_drawn_from_those_given() -> None:
    rng = np.random.default_rng(0)
    step = Downsample(4, ("area", "bicubic"))
    assert {step.draw(rng)["mode"] for _ in range(50)} == {"area", "bicubic"}


def test_a_size_that_does_not_divide_is_an_error() -> None:
    with pytest.raises(UserError, match="62x64 are not divisible by scale 4"):
        Downsample(4).apply(np.zeros((1, 64, 62, 3), np.float32), "area")
    with pytest.raises(UserError, match="modes is empty"):
        Downsample(4, ())


@pytest.mark.parametrize("function", [upsample, bicubic_upsample])
def test_upsampling_keeps_leading_axes_and_constants(function: Any) -> None:
    lq = torch.full((2, 3, 3, 4, 5), -0.25)
    assert torch.allclose(function(lq, 4), torch.full((2, 3, 3, 16, 20), -0.25))
    assert function(lq[0, 0], 2).shape == (3, 8, 10)


def test_upsample_is_aligned_with_area_downsampling() -> None:
    ramp = torch.arange(16.0).view(4, 4).mean(1).expand(1, 3, 4, 4)
    large = upsample(ramp, 4)
    assert torch.allclose(large[0, 0, 0, 2:-2], torch.arange(2.0, 14.0))


def test_bicubic_is_clamped() -> None:
    edge = torch.tensor([-1.0, -1, 1, 1]).expand(1, 3, 4, 4)
    assert bicubic_upsample(edge, 4).abs().max() == 1


@pytest.mark.parametrize("mode", ["area", "bilinear", "bicubic"])
@pytest.mark.parametrize("scale", [2, 3, 4, 5, 8])
def test_the_weights_are_the_filter_along_one_axis(mode: str, scale: int) -> None:
    weights = Downsample(scale).weights(mode)
    if mode == "bicubic" and scale < 4:
        assert weights is None
        return
    assert weights is not None
    row = np.random.default_rng(0).uniform(0, 255, 6 * scale).astype(np.float32)
    clip = np.broadcast_to(row[None, None, :, None], (1, 2 * scale, 6 * scale, 3))
    small = Downsample(scale).apply(np.ascontiguousarray(clip), mode)[0, 0, :, 0]
    np.testing.assert_allclose(small, row.reshape(6, scale) @ weights, rtol=1e-4)


def test_modes_come_with_their_probabilities() -> None:
    rng = np.random.default_rng(0)
    step = Downsample(4, ("area", "bilinear", "bicubic"), (0.3, 0.3, 0.4))
    drawn = [step.draw(rng)["mode"] for _ in range(2000)]
    for mode, share in zip(step.modes, (0.3, 0.3, 0.4), strict=True):
        assert drawn.count(mode) / 2000 == pytest.approx(share, abs=0.035)
    for wrong in ((0.5, 0.5), (0.3, 0.3, 0.3)):
        with pytest.raises(UserError, match="Downsample: probabilities must be 3 numbers that sum to 1"):
            Downsample(4, ("area", "bilinear", "bicubic"), wrong)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
def test_upsample_as_a_step_is_that_of_the_device(mode: str) -> None:
    clip = np.random.default_rng(0).uniform(0, 255, (2, 5, 6, 3)).astype(np.float32)
    large = Upsample(4, (mode,)).apply(clip, mode)  # pyright: ignore[reportArgumentType]
    assert large.shape == (2, 20, 24, 3)
    frames = torch.from_numpy(clip.transpose(0, 3, 1, 2).copy())
    align = {} if mode == "nearest" else {"align_corners": False}
    expected = torch.nn.functional.interpolate(frames, scale_factor=4, mode=mode, **align)
    np.testing.assert_allclose(large.transpose(0, 3, 1, 2), expected, atol=0.05)
