"""Warping and the consistency mask."""

import torch

from keep.flow.warp import consistency_mask, warp


def constant_flow(x: float, y: float, size: int = 8) -> torch.Tensor:
    return torch.tensor([x, y], dtype=torch.float32).view(1, 2, 1, 1).expand(1, 2, size, size)


def test_zero_flow_is_the_identity():
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(warp(x, constant_flow(0, 0).expand(2, -1, -1, -1)), x)


def test_whole_pixels_and_zeros_outside():
    x = torch.rand(1, 3, 8, 8)
    moved = warp(x, constant_flow(2, -1))  # samples two to the right, one above
    torch.testing.assert_close(moved[:, :, 1:, :-2], x[:, :, :-1, 2:])
    assert moved[:, :, 0].abs().max() < 1e-6
    assert moved[..., -2:].abs().max() < 1e-6


def test_half_pixels_are_averages():
    x = torch.rand(1, 1, 8, 8)
    torch.testing.assert_close(warp(x, constant_flow(0.5, 0))[..., :-1], (x[..., :-1] + x[..., 1:]) / 2)


def test_rectangles():
    x = torch.rand(1, 1, 4, 10)
    torch.testing.assert_close(warp(x, torch.ones(1, 2, 4, 10))[..., :-1, :-1], x[..., 1:, 1:])


def test_half_precision_is_sampled_in_float():
    x = torch.rand(1, 3, 512, 512)
    flow = torch.full((1, 2, 512, 512), 0.5)
    assert warp(x.bfloat16(), flow).dtype == torch.bfloat16
    torch.testing.assert_close(warp(x.bfloat16(), flow).float(), warp(x, flow), atol=1e-2, rtol=0)


def test_gradients():
    torch.manual_seed(0)
    x = torch.rand(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    flow = (0.3 + 0.2 * torch.rand(1, 2, 4, 5, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(warp, (x, flow))


def test_mask_is_one_where_the_flows_undo_each_other():
    forward, backward = constant_flow(2, 0), constant_flow(-2, 0)
    mask = consistency_mask(forward, backward)
    assert mask.shape == (1, 1, 8, 8)
    assert mask.dtype == torch.float32
    assert (mask[..., :-2] == 1).all()
    assert (mask[..., -2:] == 0).all()  # leads out of the image, where nothing comes back


def test_mask_bound():
    # |f + b|² against .01 (|f|² + |b|²) + .5, at flows that are equal everywhere inside
    f = constant_flow(1, 0, size=16)
    assert consistency_mask(f, constant_flow(-1 + 0.71, 0, size=16))[0, 0, 8, 8] == 1  # .5041 ≤ .5108
    assert consistency_mask(f, constant_flow(-1 + 0.72, 0, size=16))[0, 0, 8, 8] == 0  # .5184 > .5108
