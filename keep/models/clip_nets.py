"""Networks of clips as recipes see them: the size of their input, and windows of those that restore one frame."""

from typing import Any

import torch
from torch import Tensor

from keep.utils.errors import UserError


def upsampling_before(net: Any, scale: int) -> int:
    """The factor by which LQ frames, ``scale`` times smaller than the truth, are upsampled for ``net``.

    Raises:
        UserError: the network enlarges its input by more than ``scale``, or by another factor.
    """
    own = getattr(net, "scale", 1)
    if scale % own:
        raise UserError(
            f"model.scale: {scale}, but {type(net).__name__} enlarges its input {own} times: give LQ frames that are "
            f"{own} times smaller than the truth, or a network without enlargement"
        )
    return scale // own


def window_around(t: int, length: int, window: int) -> list[int]:
    """Frames of the window centred at ``t``; those beyond the clip are replaced from the window's other side."""
    around, last = window // 2, length - 1
    frames = []
    for i in range(t - around, t + around + 1):
        if i < 0:
            i = t + around - i
        elif i > last:
            i = t - around - (i - last)
        frames.append(min(max(i, 0), last))  # a clip shorter than the window
    return frames


def restore_clip(net: Any, frames: Tensor) -> Tensor:
    """All frames of clips (B, T, 3, h, w) → (B, T, 3, H, W), of a network with a ``window`` one by one."""
    window = getattr(net, "window", None)
    if window is None:
        return net(frames)
    length = frames.shape[1]
    return torch.stack([net(frames[:, window_around(t, length, window)]) for t in range(length)], dim=1)
