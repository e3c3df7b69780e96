"""Positions and attention windows of GMFlow's feature maps: made once for a size, on the device that uses them."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

SIZES_KEPT = 4
"""Sizes of feature maps whose grids are kept."""


@dataclass(frozen=True)
class Windows:
    """2×2 windows over a map of h × w positions, as an order of its positions: window by window.

    Attributes:
        order: index in the map of each position, (h·w,) int64.
        mask: (1, 4, L, L) with L = h·w / 4, added to the scores of attention: 0 where two positions of a window may
            attend to each other, else -inf. None: all may.
    """

    order: Tensor
    mask: Tensor | None = None


@dataclass(frozen=True)
class Grids:
    """What GMFlow needs to know about the positions of a map of h × w.

    Attributes:
        position: sine encoding of the position within its window, (C, h, w).
        coordinates: x and y of each position, (2, h, w).
        windows: the plain windows, and those shifted by half a window.
        moves: index by which tokens change from the order of the other windows to that of ``windows[i]``, (h·w,).
        inverse: index by which tokens in the order of ``windows[1]`` return to that of the map, (h·w,).
    """

    position: Tensor
    coordinates: Tensor
    windows: tuple[Windows, Windows]
    moves: tuple[Tensor, Tensor]
    inverse: Tensor


class Key(NamedTuple):
    """What grids depend on: size of the map, its channels, its device and dtype, and the dtype of attention."""

    h: int
    w: int
    channels: int
    device: torch.device
    dtype: torch.dtype
    attention: torch.dtype


class GridCache:
    """The grids of the last few sizes. A copy or a pickle of it starts empty."""

    def __init__(self) -> None:
        self._grids: dict[Key, Grids] = {}

    def __getstate__(self) -> dict[str, dict[Key, Grids]]:
        return {"_grids": {}}

    def of(self, features: Tensor, attention: torch.dtype) -> Grids:
        """The grids of a feature map (N, C, h, w), on its device and in its dtype; masks in the dtype of attention."""
        _, channels, h, w = features.shape
        key = Key(h, w, channels, features.device, features.dtype, attention)
        if key not in self._grids:
            if len(self._grids) == SIZES_KEPT:
                del self._grids[next(iter(self._grids))]
            with torch.inference_mode(False):  # a later call may be outside of inference mode
                self._grids[key] = make_grids(key)
        return self._grids[key]


def make_grids(key: Key) -> Grids:
    """All grids of a size; every tensor is made on the device."""
    h, w, device = key.h, key.w, key.device
    position = sine_position(h // 2, w // 2, key.channels, device).to(key.dtype).tile(2, 2, 1)
    ys, xs = torch.meshgrid(torch.arange(h, device=device), torch.arange(w, device=device), indexing="ij")
    shift = (h // 4, w // 4)
    plain = Windows(window_order(h, w, (0, 0), device))
    apart = ~shift_mask(h, w, *shift, device)
    mask = torch.zeros(apart.shape, dtype=key.attention, device=device).masked_fill_(apart, -torch.inf)
    shifted = Windows(window_order(h, w, shift, device), mask[None])
    to_map = [torch.argsort(windows.order) for windows in (plain, shifted)]
    moves = (to_map[1][plain.order], to_map[0][shifted.order])
    return Grids(
        position.permute(2, 0, 1).contiguous(), torch.stack([xs, ys]).to(key.dtype), (plain, shifted), moves, to_map[1]
    )


def sine_position(h: int, w: int, channels: int, device: torch.device) -> Tensor:
    """(h, w, channels): half for y, half for x; sine and cosine interleaved (Carion et al. 2020, DETR)."""
    half = channels // 2
    frequency = 10000 ** (-2 * (torch.arange(half, device=device) // 2) / half)

    def encode(n: int) -> Tensor:
        angle = torch.arange(1, n + 1, device=device)[:, None] / (n + 1e-6) * 2 * math.pi * frequency
        return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=-1).flatten(1)

    y, x = encode(h)[:, None].expand(h, w, half), encode(w)[None].expand(h, w, half)
    return torch.cat([y, x], dim=-1)


def window_order(h: int, w: int, shift: tuple[int, int], device: torch.device) -> Tensor:
    """Index of every position, window by window, of 2×2 windows moved by ``shift`` (y, x): (h·w,)."""
    index = torch.arange(h * w, device=device).view(h, w).roll((-shift[0], -shift[1]), (0, 1))
    return to_windows(index).flatten()


def to_windows(x: Tensor) -> Tensor:
    """(h, w) → (4, h/2·w/2)."""
    h, w = x.shape
    return x.view(2, h // 2, 2, w // 2).transpose(1, 2).reshape(4, h * w // 4)


def shift_mask(h: int, w: int, shift_y: int, shift_x: int, device: torch.device | str = "cpu") -> Tensor:
    """(4, L, L): true if two positions of a window were in one region before rolling (Liu et al. 2021, Swin)."""

    def wrapped(n: int, shift: int) -> Tensor:
        return (torch.arange(n, device=device) >= n - shift).int()

    region = to_windows(2 * wrapped(h, shift_y)[:, None] + wrapped(w, shift_x)[None])
    return region[:, :, None] == region[:, None, :]
