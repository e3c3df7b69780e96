"""Lanczos ×4: sharper than bicubic."""

import torch
from torch import Tensor

from keep.config.registry import BASELINES
from keep.utils.ranges import Scale

LOBES = 3


@BASELINES.register()
class Lanczos:
    """Lanczos-3 upsampling of each frame.

    Args:
        scale: upsampling factor.
    """

    def __init__(self, scale: Scale = 4) -> None:
        self.scale = scale

    def to(self, device: torch.device) -> "Lanczos":
        return self

    def describe(self) -> str:
        return f"Lanczos-{LOBES} ×{self.scale}"

    def __call__(self, lq: Tensor) -> Tensor:
        """(T, 3, h, w) in [-1, 1] → (T, 3, scale·h, scale·w) in [-1, 1]."""
        rows, columns = (lanczos_matrix(side, self.scale).to(lq) for side in lq.shape[-2:])
        return (rows @ lq @ columns.T).clamp(-1, 1)


def lanczos_matrix(side: int, scale: int) -> Tensor:
    """Matrix that upsamples a line of ``side`` pixels: float64 (scale·side, side), each row sums to one."""
    centre = (torch.arange(side * scale, dtype=torch.float64) + 0.5) / scale - 0.5
    x = centre[:, None] - torch.arange(side, dtype=torch.float64)
    weights = torch.sinc(x) * torch.sinc(x / LOBES) * (x.abs() < LOBES)
    return weights / weights.sum(1, keepdim=True)
