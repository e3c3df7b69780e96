"""CFA, cross-frame attention: the decoder attends to its features of the previous frame (eq. (2))."""

import torch.nn as nn
from torch import Tensor

from keep.archs.blocks import Attention, FeedForward, to_map, to_tokens
from keep.config.registry import ARCHS
from keep.utils.ranges import Depth, Width


@ARCHS.register()
class CFA(nn.Module):
    """Features v_t and v_{t-1}, both (N, channels, h, w), → v'_t of the same shape.

    Post-norm: v + LN(Attn(v_t, v_{t-1})), then v + LN(FF(v)). Starts as the identity: only the weights and biases of
    both LayerNorms are zero, so that all layers before them receive a gradient from the second step on.

    Args:
        channels: channels of the features.
        heads: attention heads.
        head_dim: channels of a head.
    """

    def __init__(self, channels: Width, heads: Depth, head_dim: Width) -> None:
        super().__init__()
        self.attn = Attention(channels, heads, head_dim)
        self.norm1 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)
        self.norm2 = nn.LayerNorm(channels)
        for norm in (self.norm1, self.norm2):
            nn.init.zeros_(norm.weight)
            nn.init.zeros_(norm.bias)

    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        x = to_tokens(current)
        x = x + self.norm1(self.attn(x, to_tokens(previous)))
        x = x + self.norm2(self.ff(x))
        return to_map(x, *current.shape[-2:])
