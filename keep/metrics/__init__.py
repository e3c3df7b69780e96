"""Metrics, registered in ``METRICS``; what they have in common is in :mod:`keep.metrics.base`.

``metric(output, target)`` takes two uint8 RGB clips (T, 3, H, W) and gives the frames' values, float64 (T,);
``metric.score(values)`` is the clip's.
"""

from keep.metrics import fvd, identity, landmarks, lpips, niqe, psnr_ssim, sigma, temporal
from keep.metrics.base import Clip, Metric, SetMetric, build_metrics

__all__ = [
    "Clip", "Metric", "SetMetric", "build_metrics",
    "fvd", "identity", "landmarks", "lpips", "niqe", "psnr_ssim", "sigma", "temporal",
]  # fmt: skip
