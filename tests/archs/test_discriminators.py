"""Shapes and normalisation of the discriminators."""

import pytest
import torch
import torch.nn as nn
from precision import autocast

from keep.archs.discriminators import PatchGAN, TemporalPatchGAN


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_patchgan(norm, device, dtype):
    net = PatchGAN(channels=8, layers=3, norm=norm).to(device)
    with autocast(device, dtype):
        scores = net(torch.rand(2, 3, 64, 64, device=device))
    assert scores.shape == (2, 1, 6, 6)
    assert scores.isfinite().all()


def test_patchgan_judges_patches_of_seventy_pixels():
    x = torch.rand(1, 3, 256, 256, requires_grad=True)
    PatchGAN(channels=4, layers=3, norm="none")(x)[0, 0, 15, 15].backward()
    assert x.grad is not None
    rows = x.grad.abs().sum((0, 1, 3)).nonzero()
    assert int(rows.max() - rows.min()) + 1 == 70


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_temporal_patchgan(frames, device, dtype):
    net = TemporalPatchGAN(channels=4).to(device)
    with autocast(device, dtype):
        scores = net(torch.rand(2, frames, 3, 64, 64, device=device))
    assert scores.shape == (2, frames, 16, 1, 1)
    assert scores.isfinite().all()


def test_temporal_patchgan_weights_are_spectrally_normalised():
    net = TemporalPatchGAN(channels=4)
    for _ in range(20):
        net(torch.rand(1, 2, 3, 16, 16))
    net.eval()
    for conv in net.modules():
        if not isinstance(conv, nn.Conv3d):
            continue
        assert torch.linalg.matrix_norm(conv.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("side", [32, 40])
def test_small_clips_are_judged_in_float32_under_autocast_on_a_cpu(side: int) -> None:
    for seed in range(3):
        torch.manual_seed(seed)
        net = TemporalPatchGAN(channels=16)
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(torch.rand(1, 3, 3, side, side).bfloat16() * 2 - 1)
        assert logits.dtype == torch.float32
        nn.functional.softplus(-logits).mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize(("frames", "side"), [(1, 64), (2, 64), (5, 32), (2, 32)])
def test_gradients_of_the_temporal_discriminator_are_right_under_autocast_on_a_cpu(frames, side):
    torch.manual_seed(0)
    net = TemporalPatchGAN(channels=16).eval()  # the spectral norm stays as it is
    clip = torch.rand(1, frames, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1
    weights = [p for p in net.parameters() if p.dim() > 1]
    exact = torch.autograd.grad(net(clip).square().mean(), weights)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = torch.autograd.grad(net(clip).square().mean(), weights)
    for a, b in zip(exact, mixed, strict=True):
        assert (a - b).abs().max() <= 0.02 * a.abs().max()
