"""Metrics, registered in ``METRICS``; their base classes are in :mod:`keep.metrics.base`.

``metric(output, target)`` takes two uint8 RGB clips (T, 3, H, W) and returns one value per frame, float64 (T,);
``metric.score(values)`` is the score of the clip.
"""

from keep.metrics import fvd, identity, landmarks, lpips, niqe, no_reference, psnr_ssim, sigma, temporal
from keep.metrics.base import Clip, Metric, SetMetric, build_metrics

__all__ = [
    "Clip", "Metric", "SetMetric", "build_metrics",
    "fvd", "identity", "landmarks", "lpips", "niqe", "no_reference", "psnr_ssim", "sigma", "temporal",
]  # fmt: skip
