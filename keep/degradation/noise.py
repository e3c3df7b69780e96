"""Noise: n_δ of eq. (9)."""

import numpy as np

from keep.degradation.pipeline import check_range
from keep.registry import DEGRADATIONS


@DEGRADATIONS.register()
class GaussianNoise:
    """White Gaussian colour noise, one level a clip, fresh in every frame: n_δ of eq. (9).

    The values are not clipped here; the next rounding (before the codec, or at the end) does that.

    Args:
        sigma: range of the standard deviation δ, of 255, drawn uniformly; 0 is no noise.
            Supplement A.4: [0, 10] in training.
    """

    def __init__(self, sigma: tuple[float, float] = (0.0, 10.0)) -> None:
        check_range(self, "sigma", sigma)
        self.sigma = sigma

    def draw(self, rng: np.random.Generator) -> dict[str, float]:
        return {"sigma": float(rng.uniform(*self.sigma)), "seed": int(rng.integers(2**32))}

    def apply(self, clip: np.ndarray, sigma: float, seed: int) -> np.ndarray:
        """(T, H, W, 3) float32 → the same shape; the field is a function of ``seed`` alone."""
        field = np.random.default_rng(seed).standard_normal(clip.shape, dtype=np.float32)
        return clip + np.float32(sigma) * field
