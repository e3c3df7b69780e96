"""LPIPS as a metric."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from keep.errors import UserError
from keep.losses.perceptual import LPIPSDistance
from keep.metrics.psnr_ssim import check_clips
from keep.registry import METRICS

FRAMES_AT_ONCE = 8
SMALLEST_SIDE = 32


@METRICS.register()
class LPIPS:
    """Learned perceptual distance, LPIPS v0.1 (Zhang et al., CVPR 2018); its name says which network.

    Args:
        net: the backbone; alex is the usual one to report.
        weights: torchvision's file of that backbone; by default looked for in the caches, then downloaded.
    """

    def __init__(self, net: Literal["alex", "vgg", "squeeze"] = "alex", weights: Path | None = None) -> None:
        self.name = f"LPIPS-{net}"
        self.higher_is_better = False
        self.distance = LPIPSDistance(net, weights)

    @torch.no_grad()
    def __call__(self, output: Tensor, target: Tensor) -> np.ndarray:
        """uint8 RGB (T, 3, H, W) of at least 32×32, twice → float64 (T,); computed on the device of ``output``."""
        check_clips(output, target)
        if min(output.shape[-2:]) < SMALLEST_SIDE:
            raise UserError(f"LPIPS needs frames of at least 32×32, not {tuple(output.shape[-2:])}")
        distance = self.distance.to(output.device)
        pairs = zip(output.split(FRAMES_AT_ONCE), target.to(output.device).split(FRAMES_AT_ONCE), strict=True)
        with torch.autocast(output.device.type, enabled=False):
            values = [distance(a.float() / 127.5 - 1, b.float() / 127.5 - 1) for a, b in pairs]
        return torch.cat(values).double().cpu().numpy()
