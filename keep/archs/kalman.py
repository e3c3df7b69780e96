"""The Kalman filter network φ: the gain of each observed token (supplement A.1, Fig. A1)."""

from typing import Literal

import torch
import torch.nn as nn
from torch import Tensor

from keep.archs.blocks import Attention, FeedForward, ResBlock
from keep.config.registry import ARCHS
from keep.utils.ranges import Depth, Width


class UncertaintyBlock(nn.Module):
    """ST-Attn, GEGLU feed-forward, T-Attn, all pre-norm residual; tokens (B, T, L, dim) → the same shape."""

    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn1 = Attention(dim, heads, head_dim)
        self.norm3 = nn.LayerNorm(dim)
        self.ff = FeedForward(dim)
        self.norm_temp = nn.LayerNorm(dim)
        self.attn_temp = Attention(dim, heads, head_dim)

    def forward(self, h: Tensor, filled: Tensor | None = None) -> Tensor:
        h = h + self._spatial_temporal(self.norm1(h))
        h = h + self.ff(self.norm3(h))
        return h + self._temporal(self.norm_temp(h), filled)

    def _spatial_temporal(self, h: Tensor) -> Tensor:
        """Each frame attends to the first frame and to the previous one. The first frame attends to itself."""
        first = h[:, :1].expand_as(h)
        previous = torch.cat([h[:, :1], h[:, :-1]], dim=1)
        context = torch.cat([first, previous], dim=2)
        return self.attn1(h.flatten(0, 1), context.flatten(0, 1)).view_as(h)

    def _temporal(self, h: Tensor, filled: Tensor | None) -> Tensor:
        """Each token attends to the tokens at the same position in all frames, or in those where ``filled`` is true."""
        b, t, l, c = h.shape
        tokens = h.transpose(1, 2).reshape(b * l, t, c)
        mask = None if filled is None else filled.repeat_interleave(l, dim=0)[:, None, None]
        return self.attn_temp(tokens, tokens, mask).view(b, l, t, c).transpose(1, 2)


@ARCHS.register()
class KalmanFilter(nn.Module):
    """Observed codes z̃ (B, T, C, h, w) to gains K (B, T, 1, h, w) in (0, 1), one value per token.

    K weighs the observation: ẑ⁺ = (1 - K) ẑ⁻ + K z̃ (Algorithm 1).

    Args:
        dim: channels C of the codes.
        heads: heads of every attention.
        head_dim: channels of a head.
        blocks: number of uncertainty blocks.
        gain_blocks: residual blocks of the gain network.
        temporal: ``causal``: K_t = φ(z̃_1, z̃_{t-1}, z̃_t) as in Algorithm 1, so that a clip can be streamed.
            ``clip``: T-Attn spans all frames, so every gain depends on the entire clip (the public weights).
        norm_groups: groups of every GroupNorm.
    """

    def __init__(
        self,
        dim: Width = 256,
        heads: Depth = 8,
        head_dim: Width = 48,
        blocks: Depth = 3,
        gain_blocks: Depth = 3,
        temporal: Literal["clip", "causal"] = "clip",
        norm_groups: Width = 32,
    ) -> None:
        super().__init__()
        self.temporal = temporal
        self.uncertainty = nn.ModuleList(UncertaintyBlock(dim, heads, head_dim) for _ in range(blocks))
        self.gain = nn.Sequential(*(ResBlock(dim, dim, norm_groups) for _ in range(gain_blocks)), nn.Conv2d(dim, 1, 1))

    def forward(self, z: Tensor) -> Tensor:
        if self.temporal == "clip":
            return self._gain(self._uncertainty(z))
        first = z[:, :1].expand_as(z)
        previous = torch.cat([z[:, :1], z[:, :-1]], dim=1)
        return self.step(first.flatten(0, 1), previous.flatten(0, 1), z.flatten(0, 1)).unflatten(0, z.shape[:2])

    def step(self, first: Tensor, previous: Tensor, current: Tensor) -> Tensor:
        """φ(z̃_1, z̃_{t-1}, z̃_t), each (N, C, h, w), → K_t (N, 1, h, w); at t = 1 all three are z̃_1.

        The three codes form a clip of three frames; the gain of its last frame is K_t.
        """
        return self._gain(self._uncertainty(torch.stack([first, previous, current], dim=1))[:, -1:]).squeeze(1)

    def last(self, z: Tensor, filled: Tensor) -> Tensor:
        """Codes (B, T, C, h, w) → the gain of the last frame, (B, 1, h, w), for clips of different lengths.

        A clip shorter than T is [z̃_1, z̃_1, …, z̃_2, …, z̃_t]: the places after the first one are filled with z̃_1.

        Args:
            z: the codes.
            filled: (B, T), true for the frames of the clip and false for the filling.
        """
        return self._gain(self._uncertainty(z, filled)[:, -1:]).squeeze(1)

    def _uncertainty(self, z: Tensor, filled: Tensor | None = None) -> Tensor:
        """(B, T, C, h, w) → (B, T, C, h, w)."""
        h = z.flatten(3).transpose(2, 3)
        for block in self.uncertainty:
            h = block(h, filled)
        return h.transpose(2, 3).reshape(z.shape)

    def _gain(self, uncertainty: Tensor) -> Tensor:
        """(B, T, C, h, w) → (B, T, 1, h, w)."""
        return self.gain(uncertainty.flatten(0, 1)).sigmoid().unflatten(0, uncertainty.shape[:2])
