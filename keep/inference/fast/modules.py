"""Faster modules of the same function, and how they replace the plain ones."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from keep.archs.blocks import ResBlock, Upsample
from keep.kernels.norm_layers import FusedGroupNorm

LARGE_IMAGE = 256 * 256
"""Pixels from which :class:`ChannelsLastGroupNorm` computes its own statistics."""
STRIP_ROWS = 4


def replace_modules(module: nn.Module, replacements: Mapping[type, Callable[[Any], nn.Module]]) -> None:
    """Replace submodules, innermost first.

    Args:
        module: its submodules are replaced, not the module itself.
        replacements: exact type → a function that builds the new module from the old one.
    """
    for name, child in list(module.named_children()):
        replace_modules(child, replacements)
        if build := replacements.get(type(child)):
            setattr(module, name, build(child))


class FusedUpsample(nn.Module):
    """Nearest ×2 and a 3×3 convolution as one 4×4 transposed convolution of stride 2: (N, C, H, W) → (N, C, 2H, 2W).

    The nine products of an output pixel read only four different input pixels, so their weights are added beforehand:
    the kernel is the flipped 3×3 convolved with ones(2, 2). The function is the same, borders included: zeros around
    the large image are zeros around the small one.

    Args:
        upsample: the module to replace.
    """

    def __init__(self, upsample: Upsample) -> None:
        super().__init__()
        weight = upsample.conv.weight.detach()
        c_out, c_in = weight.shape[:2]
        flipped = weight.flip(2, 3).transpose(0, 1).reshape(c_in * c_out, 1, 3, 3)
        kernel = F.conv2d(flipped, flipped.new_ones(1, 1, 2, 2), padding=1).view(c_in, c_out, 4, 4)
        self.conv = nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1, device=weight.device, dtype=weight.dtype)
        assert self.conv.bias is not None
        assert upsample.conv.bias is not None
        with torch.no_grad():
            self.conv.weight.copy_(kernel)
            self.conv.bias.copy_(upsample.conv.bias)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class ChannelsLastGroupNorm(FusedGroupNorm):
    """GroupNorm of channels-last images: on CUDA a kernel in their layout, on a CPU accurate statistics.

    PyTorch 2.15 sums such an image term by term in float32: at 512×512 the error is 1e-4 to 1e-3; in the other layout
    it is 1e-6 (measured). On large images of a CPU this module sums strips of a few rows, then combines
    their means and variances: 5e-6.
    """

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        large = h * w >= LARGE_IMAGE and h % STRIP_ROWS == 0
        if x.device.type != "cpu" or x.dtype != torch.float32 or not large:
            return super().forward(x)
        strips = x.permute(0, 2, 3, 1).reshape(-1, STRIP_ROWS, w, c).permute(0, 3, 1, 2)
        tiny = 1e-12
        out, means, inverses = torch.native_group_norm(
            strips, None, None, strips.shape[0], c, STRIP_ROWS * w, self.num_groups, tiny
        )
        means, variances = (v.view(n, -1, self.num_groups).double() for v in (means, inverses**-2 - tiny))
        mean = means.mean(1)
        variance = variances.mean(1) + means.var(1, correction=0)
        # (x - mean) / deviation · weight + bias = x · scale + shift
        scale = (variance + self.eps).rsqrt()[:, :, None] * self.weight.view(self.num_groups, -1)
        shift = self.bias.view(self.num_groups, -1) - mean[:, :, None] * scale
        scale, shift = (v.float().reshape(n, c, 1, 1) for v in (scale, shift))
        # The normalised strips are not needed; their memory is reused.
        out = out.permute(0, 2, 3, 1).reshape(n, h, w, c).permute(0, 3, 1, 2)
        out = torch.addcmul(shift, x, scale, out=out)
        return F.silu(out, inplace=True) if self.silu else out


class InPlaceResBlock(nn.Module):
    """A :class:`ResBlock` that writes the sum into a tensor with no other reference.

    Args:
        block: the block to replace; the weights are shared.
    """

    def __init__(self, block: ResBlock) -> None:
        super().__init__()
        self.norm1, self.conv1 = block.norm1, block.conv1
        self.norm2, self.conv2 = block.norm2, block.conv2
        if hasattr(block, "conv_out"):
            self.conv_out = block.conv_out

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(self.norm1(x))
        h = self.conv2(self.norm2(h))
        return h.add_(self.conv_out(x) if hasattr(self, "conv_out") else x)
