"""CFT, controllable feature transformation: the encoder's features correct the decoder's (eq. (1))."""

import torch
import torch.nn as nn
from torch import Tensor

from keep.archs.blocks import ResBlock, conv3x3
from keep.config.registry import ARCHS
from keep.utils.ranges import Width


@ARCHS.register()
class CFT(nn.Module):
    """v = F_d + w · (α ⊙ F_d + β), with (α, β) computed from [F_e, F_d]; all (N, channels, h, w).

    Starts as the identity: only the last layer of each head is zero, so that all layers before it receive a gradient
    from the second step on.

    Args:
        channels: channels of the features.
        norm_groups: groups of every GroupNorm.
    """

    def __init__(self, channels: Width, norm_groups: Width = 32) -> None:
        super().__init__()
        self.encode_enc = ResBlock(2 * channels, channels, norm_groups)
        self.scale = _head(channels)
        self.shift = _head(channels)

    def forward(self, f_e: Tensor, f_d: Tensor, w: float = 1.0) -> Tensor:
        """``w``: 1 for fidelity to the input, 0 for the quality of the codebook alone."""
        h = self.encode_enc(torch.cat([f_e, f_d], dim=1))
        return f_d + w * (self.scale(h) * f_d + self.shift(h))


def _head(channels: int) -> nn.Sequential:
    last = conv3x3(channels, channels)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    return nn.Sequential(conv3x3(channels, channels), nn.LeakyReLU(0.2), last)
