"""Warping and the consistency mask."""

import pytest
import torch
from precision import close

from keep.flow.warp import consistency_mask, warp


@pytest.fixture
def constant_flow(device):
    def make(x: float, y: float, size: int = 8) -> torch.Tensor:
        return torch.tensor([x, y], device=device).view(1, 2, 1, 1).expand(1, 2, size, size)

    return make


def test_zero_flow_is_the_identity(constant_flow, device, dtype):
    x = torch.rand(2, 3, 8, 8, device=device).to(dtype)
    warped = warp(x, constant_flow(0.0, 0.0).expand(2, -1, -1, -1))
    assert warped.dtype == dtype
    close(warped, x, dtype=dtype)


def test_whole_pixels_and_zeros_outside(constant_flow, device, dtype):
    x = torch.rand(1, 3, 8, 8, device=device).to(dtype)
    moved = warp(x, constant_flow(2.0, -1.0))  # samples two to the right, one above
    close(moved[:, :, 1:, :-2], x[:, :, :-1, 2:].contiguous(), 1e-5, dtype)
    assert moved[:, :, 0].abs().max() < 1e-6
    assert moved[..., -2:].abs().max() < 1e-6


def test_half_pixels_are_averages(constant_flow, device, dtype):
    x = torch.rand(1, 1, 8, 8, device=device).to(dtype)
    close(warp(x, constant_flow(0.5, 0.0))[..., :-1], (x[..., :-1] + x[..., 1:]) / 2, 1e-5, dtype)


def test_rectangles(device, dtype):
    x = torch.rand(1, 1, 4, 10, device=device).to(dtype)
    close(warp(x, torch.ones(1, 2, 4, 10, device=device))[..., :-1, :-1], x[..., 1:, 1:].contiguous(), 1e-5, dtype)


def test_half_precision_is_sampled_in_float(device):
    x = torch.rand(1, 3, 512, 512, device=device)
    flow = torch.full((1, 2, 512, 512), 0.5, device=device)
    assert warp(x.bfloat16(), flow).dtype == torch.bfloat16
    torch.testing.assert_close(warp(x.bfloat16(), flow).float(), warp(x, flow), atol=1e-2, rtol=0)


def test_gradients(device):
    torch.manual_seed(0)
    x, flow = torch.rand(2, 1, 2, 4, 5, dtype=torch.float64, device=device)
    x, flow = x.requires_grad_(), (0.3 + 0.2 * flow).requires_grad_()
    assert torch.autograd.gradcheck(warp, (x, flow))


def test_mask_is_one_where_the_flows_undo_each_other(constant_flow):
    forward, backward = constant_flow(2.0, 0.0), constant_flow(-2.0, 0.0)
    mask = consistency_mask(forward, backward)
    assert mask.shape == (1, 1, 8, 8)
    assert mask.dtype == torch.float32
    assert (mask[..., :-2] == 1).all()
    assert (mask[..., -2:] == 0).all()  # leads out of the image, where nothing comes back


def test_mask_bound(constant_flow):
    # |f + b|² against .01 (|f|² + |b|²) + .5, at flows that are equal everywhere inside
    f = constant_flow(1.0, 0.0, size=16)
    assert consistency_mask(f, constant_flow(-1 + 0.71, 0.0, size=16))[0, 0, 8, 8] == 1  # .5041 ≤ .5108
    assert consistency_mask(f, constant_flow(-1 + 0.72, 0.0, size=16))[0, 0, 8, 8] == 0  # .5184 > .5108
