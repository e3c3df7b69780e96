"""What a Kalman gain depends on."""

from typing import Literal

import pytest
import torch
from precision import autocast, close

from keep.archs.kalman import KalmanFilter


def gains(temporal: Literal["clip", "causal"], z: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(0)
    return KalmanFilter(16, 2, 8, 2, 1, temporal).eval().to(z.device)(z)


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def z(device) -> torch.Tensor:
    return noise(0, 2, 5, 16, 4, 4).to(device)


@pytest.mark.parametrize("temporal", ["clip", "causal"])
def test_one_value_a_token_between_zero_and_one(temporal, z, device, dtype):
    with autocast(device, dtype):
        k = gains(temporal, z)
    assert k.shape == (2, 5, 1, 4, 4)
    assert k.min() > 0
    assert k.max() < 1


@torch.no_grad()
@pytest.mark.parametrize("frame", range(5))
def test_causal_gain_depends_on_first_previous_and_current_alone(frame, z):
    changed = z.clone()
    changed[:, frame] += noise(1, 16, 4, 4).to(z.device)
    moved = (gains("causal", changed) - gains("causal", z)).abs().amax((0, 2, 3, 4)) > 1e-6
    assert moved.tolist() == [frame == 0 or t in (frame, frame + 1) for t in range(5)]


@torch.no_grad()
def test_clip_gain_depends_on_every_frame(z):
    changed = z.clone()
    changed[:, 4] += noise(1, 16, 4, 4).to(z.device)
    assert ((gains("clip", changed) - gains("clip", z)).abs().amax((0, 2, 3, 4)) > 1e-6).all()


@torch.no_grad()
def test_the_two_settings_agree_on_three_frames_at_the_last(z, device, dtype):
    with autocast(device, dtype):
        close(gains("clip", z[:, :3])[:, 2], gains("causal", z[:, :3])[:, 2], dtype=dtype)
