"""Blur: the kernel k_σ of eq. (9)."""

import math

import cv2
import numpy as np

from keep.degradation.pipeline import check_range
from keep.registry import DEGRADATIONS


@DEGRADATIONS.register()
class GaussianBlur:
    """Isotropic Gaussian blur, one σ a clip: y ⊛ k_σ of eq. (9).

    The kernel reaches 4σ, so that σ means σ; borders are reflected. (The public code cuts its kernel at
    21 taps, which makes σ = 10 about 5.6.)

    Args:
        sigma: range of σ in pixels of the full-size frame, drawn uniformly; 0 is no blur.
            Supplement A.4: [2, 10] in training.
    """

    def __init__(self, sigma: tuple[float, float] = (2.0, 10.0)) -> None:
        check_range(self, "sigma", sigma)
        self.sigma = sigma

    def draw(self, rng: np.random.Generator) -> dict[str, float]:
        return {"sigma": float(rng.uniform(*self.sigma))}

    def apply(self, clip: np.ndarray, sigma: float) -> np.ndarray:
        """(T, H, W, 3) float32 → the same shape."""
        if sigma == 0:
            return clip
        kernel = gaussian_kernel(sigma)
        return np.stack([cv2.sepFilter2D(f, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT_101) for f in clip])


def gaussian_kernel(sigma: float) -> np.ndarray:
    """Sampled 1-D Gaussian of radius ⌈4σ⌉, float32, sum 1."""
    radius = math.ceil(4 * sigma)
    x = np.arange(-radius, radius + 1)
    kernel = np.exp(-(x**2) / (2 * sigma**2))
    return (kernel / kernel.sum()).astype(np.float32)
