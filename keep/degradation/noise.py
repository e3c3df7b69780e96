"""Noise: n_δ of eq. (9)."""

from typing import Any

import numpy as np

from keep.config.registry import DEGRADATIONS
from keep.degradation.pipeline import check_range
from keep.utils.ranges import Share, Sigma


@DEGRADATIONS.register()
class GaussianNoise:
    """White Gaussian noise, one level per clip, independent in every frame: n_δ of eq. (9).

    The values are clipped at the next rounding (before the codec, or at the end).

    Args:
        sigma: range of the standard deviation δ, of 255, drawn uniformly; 0 adds no noise.
            Supplement A.4: [0, 10] in training.
        grey: probability of grey noise, the same in all three channels; otherwise the channels are independent.
            The paper does not specify it; the public code .5.
    """

    def __init__(self, sigma: tuple[Sigma, Sigma] = (0.0, 10.0), grey: Share = 0.0) -> None:
        check_range(self, "sigma", sigma)
        self.sigma, self.grey = sigma, grey

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        drawn: dict[str, Any] = {"sigma": float(rng.uniform(*self.sigma)), "seed": int(rng.integers(2**32))}
        if self.grey:
            drawn["grey"] = bool(rng.random() < self.grey)
        return drawn

    def apply(self, clip: np.ndarray, sigma: float, seed: int, grey: bool = False) -> np.ndarray:
        """(T, H, W, 3) float32 → the same shape."""
        return clip + self.field(clip.shape, sigma, seed, grey)

    def field(self, shape: tuple[int, ...], sigma: float, seed: int, grey: bool = False) -> np.ndarray:
        """The noise alone, float32 (T, H, W, 3): a function of its arguments."""
        own = (*shape[:-1], 1) if grey else shape
        field = np.random.default_rng(seed).standard_normal(own, dtype=np.float32)
        return np.ascontiguousarray(np.broadcast_to(np.float32(sigma) * field, shape))
