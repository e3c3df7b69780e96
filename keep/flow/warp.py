"""Warping by optical flow, and the mask of consistent flow."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """ω: sample ``x`` at p + flow(p), bilinearly; 0 outside the image.

    Args:
        x: (N, C, H, W).
        flow: (N, 2, H, W) in pixels, channel 0 = x, channel 1 = y.

    Returns:
        (N, C, H, W). With ``x`` the previous frame and ``flow`` current→previous: the current frame.
    """
    return sample(x, flow, "zeros")


def sample(x: Tensor, flow: Tensor, outside: Literal["zeros", "border"]) -> Tensor:
    """:func:`warp` with a choice of what lies outside the image: zeros, or its nearest pixel."""
    h, w = flow.shape[-2:]
    dtype = torch.promote_types(x.dtype, torch.float32)  # half precision cannot address 512 pixels
    ys = torch.arange(h, dtype=dtype, device=x.device)[:, None]
    xs = torch.arange(w, dtype=dtype, device=x.device)
    grid_x = 2 * (xs + flow[:, 0].to(dtype)) / max(w - 1, 1) - 1
    grid_y = 2 * (ys + flow[:, 1].to(dtype)) / max(h - 1, 1) - 1
    grid = torch.stack([grid_x, grid_y], dim=-1)
    return F.grid_sample(x.to(dtype), grid, mode="bilinear", padding_mode=outside, align_corners=True).to(x.dtype)


def consistency_mask(forward: Tensor, backward: Tensor) -> Tensor:
    """M of eq. (7): 1 where following ``forward`` and then ``backward`` returns close to the start.

    |f + b'|² ≤ .01 (|f|² + |b'|²) + .5 with b' = ω(b, f) (Sundaram et al. 2010); 0 where f leaves the image.

    Args:
        forward: (N, 2, H, W), pixels.
        backward: (N, 2, H, W), pixels, the flow in the opposite direction.

    Returns:
        (N, 1, H, W), 0 or 1, in the dtype of ``forward``.
    """
    back = warp(backward, forward)
    error = (forward + back).square().sum(1, keepdim=True)
    size = forward.square().sum(1, keepdim=True) + back.square().sum(1, keepdim=True)
    inside = warp(torch.ones_like(back[:, :1]), forward) > 0.999
    return ((error <= 0.01 * size + 0.5) & inside).to(forward.dtype)
