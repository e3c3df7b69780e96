"""Blocks that several networks share: residual, attention, resampling, feed-forward."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


def group_norm(channels: int, groups: int = 32) -> nn.GroupNorm:
    """GroupNorm with gcd(groups, channels) groups."""
    return nn.GroupNorm(math.gcd(groups, channels), channels, eps=1e-6)


class GroupNormSiLU(nn.GroupNorm):
    """SiLU of GroupNorm."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(super().forward(x), inplace=not torch.is_grad_enabled())


def group_norm_silu(channels: int, groups: int = 32) -> GroupNormSiLU:
    """GroupNorm with gcd(groups, channels) groups, then SiLU."""
    return GroupNormSiLU(math.gcd(groups, channels), channels, eps=1e-6)


def conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


class ResBlock(nn.Module):
    """(N, C_in, H, W) → (N, C_out, H, W): twice GroupNorm, SiLU, 3×3. The shortcut is 1×1 if C changes."""

    def __init__(self, in_channels: int, out_channels: int, groups: int = 32) -> None:
        super().__init__()
        self.norm1 = group_norm_silu(in_channels, groups)
        self.conv1 = conv3x3(in_channels, out_channels)
        self.norm2 = group_norm_silu(out_channels, groups)
        self.conv2 = conv3x3(out_channels, out_channels)
        if in_channels != out_channels:
            self.conv_out = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(self.norm1(x))
        h = self.conv2(self.norm2(h))
        return h + (self.conv_out(x) if hasattr(self, "conv_out") else x)


class AttnBlock(nn.Module):
    """Single-head self-attention over the positions of (N, C, H, W), with a residual."""

    def __init__(self, channels: int, groups: int = 32) -> None:
        super().__init__()
        self.norm = group_norm(channels, groups)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = (to_tokens(f(y)) for f in (self.q, self.k, self.v))
        return x + self.proj_out(to_map(F.scaled_dot_product_attention(q, k, v), *x.shape[-2:]))


class Downsample(nn.Module):
    """Halves H and W: 3×3 convolution of stride 2, padded only on the right and at the bottom."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubles H and W: nearest neighbour, then a 3×3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Attention(nn.Module):
    """Multi-head attention of tokens (N, L, dim) to a context (N, M, dim) → (N, L, dim); only the output has a bias."""

    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, heads * head_dim, bias=False)
        self.to_k = nn.Linear(dim, heads * head_dim, bias=False)
        self.to_v = nn.Linear(dim, heads * head_dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * head_dim, dim))

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """``mask``: true where a token may attend, broadcast to (N, heads, L, M); None: everywhere."""
        q, k, v = self._split(self.to_q(x)), self._split(self.to_k(context)), self._split(self.to_v(context))
        h = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.to_out(h.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class GEGLU(nn.Module):
    """(a, g) = proj(x); a · GELU(g) (Shazeer 2020, "GLU variants improve Transformer")."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        a, g = self.proj(x).chunk(2, dim=-1)
        return a * F.gelu(g)


class FeedForward(nn.Module):
    """GEGLU feed-forward of tokens (N, L, dim) with inner width 4·dim."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        # In the public weights' layout, index 1 is a dropout of rate 0.
        self.net = nn.Sequential(GEGLU(dim, 4 * dim), nn.Identity(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def to_tokens(x: Tensor) -> Tensor:
    """(N, C, h, w) → (N, h·w, C), in row-major order."""
    return x.flatten(2).transpose(1, 2)


def to_map(tokens: Tensor, h: int, w: int) -> Tensor:
    """(N, h·w, C) → (N, C, h, w)."""
    return tokens.transpose(1, 2).unflatten(2, (h, w))
