"""PSNR and SSIM, in RGB, on uint8-rounded frames, without cropping, in float64."""

import numpy as np
import torch
from torch import Tensor

from keep.config.registry import METRICS
from keep.metrics.base import Clip, Metric
from keep.utils.errors import UserError

WINDOW, SIGMA = 11, 1.5


@METRICS.register()
class PSNR(Metric):
    """Peak signal-to-noise ratio in dB, over all RGB values of a frame; infinite for identical frames.

    Infinite values are kept, as in scikit-image: a mean that includes one is infinite.
    """

    def __init__(self) -> None:
        self.name, self.higher_is_better, self.decimals = "PSNR", True, 2

    def measure(self, output: Clip, target: Clip) -> np.ndarray:
        pairs = zip(output.frames, target.frames, strict=True)
        mse = np.array([(a.double() - b.double()).square().mean().item() for a, b in pairs], dtype=np.float64)
        with np.errstate(divide="ignore"):
            return 10 * np.log10(255.0**2 / mse)


@METRICS.register()
class SSIM(Metric):
    """Structural similarity (Wang et al., 2004): 11×11 Gaussian window, σ 1.5, whole windows only, mean of channels."""

    def __init__(self) -> None:
        self.name, self.higher_is_better = "SSIM", True

    def measure(self, output: Clip, target: Clip) -> np.ndarray:
        height, width = output.frames.shape[-2:]
        if min(height, width) < WINDOW:
            raise UserError(f"SSIM needs frames of at least {WINDOW}×{WINDOW}, not {width}×{height}")
        pairs = zip(output.frames, target.frames, strict=True)
        return np.array([_ssim(a.double(), b.double()) for a, b in pairs], dtype=np.float64)


def _ssim(a: Tensor, b: Tensor) -> float:
    """Two frames, float64 (3, H, W) in [0, 255] → SSIM."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b, aa, bb, ab = _smooth(torch.stack([a, b, a * a, b * b, a * b]))
    var_a, var_b, cov = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    top = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    bottom = (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return (top / bottom).mean().item()


def _smooth(x: Tensor) -> Tensor:
    """Gaussian window over the last two axes, without padding: (…, H, W) → (…, H-10, W-10)."""
    # Sums of shifted copies: in float64 on the CPU six times as fast as a convolution.
    g = np.exp(-((np.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * SIGMA**2))
    first, *others = (g / g.sum()).tolist()
    for axis in (-2, -1):
        fits = x.shape[axis] - WINDOW + 1
        total = x.narrow(axis, 0, fits) * first
        for k, factor in enumerate(others, start=1):
            total.add_(x.narrow(axis, k, fits), alpha=factor)
        x = total
    return x
