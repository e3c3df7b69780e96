"""Patch discriminators: 2-D for the images of stage I, 3-D for the clips of stage III."""

from itertools import pairwise
from typing import Literal

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.utils.parametrizations import spectral_norm

from keep.config.registry import ARCHS
from keep.utils.ranges import Depth, Width


@ARCHS.register()
class PatchGAN(nn.Module):
    """2-D patch discriminator (Isola et al. 2017): images (N, C, H, W) in [-1, 1] → logits (N, 1, h, w).

    Args:
        in_channels: channels of the images.
        channels: channels of the first layer. Each layer doubles them, up to eight times the first.
        layers: number of stride-2 layers; with 3 a score covers a patch of 70 pixels, with 4 one of 142.
        norm: normalisation of the inner layers.
    """

    def __init__(
        self,
        in_channels: Width = 3,
        channels: Width = 64,
        layers: Depth = 4,
        norm: Literal["batch", "instance", "none"] = "batch",
    ) -> None:
        super().__init__()
        blocks: list[nn.Module] = [nn.Conv2d(in_channels, channels, 4, 2, 1), nn.LeakyReLU(0.2)]
        width = channels
        for i in range(1, layers + 1):
            next_width = channels * min(2**i, 8)
            blocks.append(nn.Conv2d(width, next_width, 4, 2 if i < layers else 1, 1, bias=norm != "batch"))
            if norm == "batch":
                blocks.append(nn.BatchNorm2d(next_width))
            elif norm == "instance":
                blocks.append(nn.InstanceNorm2d(next_width))
            blocks.append(nn.LeakyReLU(0.2))
            width = next_width
        self.net = nn.Sequential(*blocks, nn.Conv2d(width, 1, 4, 1, 1))
        self.apply(_init)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def _init(module: nn.Module) -> None:
    """Initialise as pix2pix (Isola et al. 2017): standard deviation .02, mean 0, or 1 for norms."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, mean=1.0, std=0.02)


@ARCHS.register()
class TemporalPatchGAN(nn.Module):
    """3-D patch discriminator (Chang et al. 2019): clips (B, T, C, H, W) in [-1, 1] → logits (B, T, 4·channels, h, w).

    Six convolutions of kernel 3×5×5 and stride 1×2×2 with spectral norm. Every element of the output judges one patch
    of the clip. T ≥ 1.

    Args:
        in_channels: channels of the frames.
        channels: channels of the first layer; the second layer has twice, the others four times as many.
    """

    clips = True
    """It scores clips; other discriminators score images."""

    def __init__(self, in_channels: Width = 3, channels: Width = 32) -> None:
        super().__init__()
        widths = [in_channels, channels, 2 * channels] + [4 * channels] * 4
        blocks: list[nn.Module] = []
        for width, next_width in pairwise(widths):
            conv = nn.Conv3d(width, next_width, (3, 5, 5), stride=(1, 2, 2), padding=(1, 2, 2))
            blocks += [spectral_norm(conv), nn.LeakyReLU(0.2)]
        self.net = nn.Sequential(*blocks[:-1])

    def forward(self, clip: Tensor) -> Tensor:
        volume = clip.transpose(1, 2)
        if clip.device.type != "cpu":
            return self.net(volume).transpose(1, 2)
        # On a CPU never in autocast's bfloat16: oneDNN's gradient of the weights is then wrong or not finite for clips
        # of two frames, and for maps of one pixel (PyTorch 2.15, AVX512-BF16).
        with torch.autocast("cpu", enabled=False):
            return self.net(volume.to(next(self.parameters()).dtype)).transpose(1, 2)
