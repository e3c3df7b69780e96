from typing import Any

import numpy as np
import pytest
import torch

from keep.degradation.resize import Downsample, bicubic_upsample, upsample
from keep.errors import UserError


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
