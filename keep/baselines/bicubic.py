"""Bicubic ×4: the floor of every table."""

import torch

from keep.config.registry import BASELINES
from keep.degradation.resize import bicubic_upsample
from keep.utils.ranges import Scale


@BASELINES.register()
class Bicubic:
    """Bicubic upsampling of each frame.

    Args:
        scale: upsampling factor.
    """

    def __init__(self, scale: Scale = 4) -> None:
        self.scale = scale

    def to(self, device: torch.device) -> "Bicubic":
        return self

    def describe(self) -> str:
        return f"bicubic ×{self.scale}"

    def __call__(self, lq: torch.Tensor) -> torch.Tensor:
        """(T, 3, h, w) in [-1, 1] → (T, 3, scale·h, scale·w) in [-1, 1]."""
        return bicubic_upsample(lq, self.scale)
