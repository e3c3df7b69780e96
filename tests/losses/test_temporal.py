import pytest
import torch
from precision import ATOL

from keep.losses.temporal import Temporal


@pytest.fixture
def moving_clip(device) -> tuple[torch.Tensor, torch.Tensor]:
    """A texture moving right by 2 px a frame: clip (1, 3, 3, 16, 24), flow current→previous (1, 2, 2, 16, 24)."""
    texture = torch.rand(3, 16, 40, generator=torch.Generator().manual_seed(0))
    clip = torch.stack([texture[..., 8 - 2 * t : 32 - 2 * t] for t in range(3)])[None]
    flow = torch.zeros(1, 2, 2, 16, 24)
    flow[:, :, 0] = -2
    return clip.to(device), flow.to(device)


def test_consistent_motion_costs_nothing(moving_clip, device, dtype):
    clip, flow = moving_clip
    clip = clip.to(dtype)
    masks = torch.ones(1, 2, 1, 16, 24, device=device)
    masks[..., :2] = 0  # what came in from the left was nowhere before
    assert Temporal()(clip, flow, masks) < ATOL[dtype]
    assert Temporal()(clip, flow * 0, masks) > 0.1


def test_masked_mean(device, dtype):
    output = torch.zeros(2, 2, 3, 8, 8, device=device, dtype=dtype)
    output[:, 1] = 0.5
    masks = torch.zeros(2, 1, 1, 8, 8, device=device)
    masks[..., :4] = 1
    flow = torch.zeros(2, 1, 2, 8, 8, device=device)
    assert Temporal()(output, flow, masks).item() == pytest.approx(0.25, abs=ATOL[dtype])
    assert Temporal(kind="charbonnier")(output, flow, masks).item() == pytest.approx(0.25, abs=max(1e-5, ATOL[dtype]))


def test_the_sum_over_frames_of_eq_7_is_the_mean_times_their_number():
    output = torch.zeros(2, 4, 3, 8, 8)
    output[:, 1::2] = 0.5  # three neighbours that differ by 0.5 everywhere
    flow, masks = torch.zeros(2, 3, 2, 8, 8), torch.ones(2, 3, 1, 8, 8)
    assert Temporal(reduction="sum")(output, flow, masks).item() == pytest.approx(1.5)
    assert Temporal(reduction="mean")(output, flow, masks).item() == pytest.approx(0.5)
    assert Temporal()(output, flow, masks).item() == pytest.approx(0.5)


def test_one_frame_gives_zero_with_a_graph():
    output = torch.rand(2, 1, 3, 8, 8, requires_grad=True)
    loss = Temporal()(output, torch.zeros(2, 0, 2, 8, 8), torch.zeros(2, 0, 1, 8, 8))
    assert loss.item() == 0
    loss.backward()
    assert output.grad is not None
    assert not output.grad.any()
