"""Metrics, registered in ``METRICS``.

A metric has a ``name`` and ``higher_is_better``; ``metric(output, target)`` takes two uint8 RGB clips (T, 3, H, W)
and gives a float64 array (T,), one value a frame.
"""

from keep.metrics import lpips, psnr_ssim

__all__ = ["lpips", "psnr_ssim"]
