"""Noise: n_δ of eq. (9)."""

from typing import Any

import numpy as np

from keep.config.registry import DEGRADATIONS
from keep.degradation.pipeline import check_range, scaled_sigma
from keep.utils.ranges import Share, Side, Sigma


@DEGRADATIONS.register()
class GaussianNoise:
    """White Gaussian noise, one level per clip, independent in every frame: n_δ of eq. (9).

    The values are clipped at the next rounding (before the codec, or at the end).

    Args:
        sigma: range of the standard deviation δ, of 255, drawn uniformly; 0 adds no noise.
            Supplement A.4: [0, 10] in training.
        grey: probability of grey noise, the same in all three channels; otherwise the channels are independent.
            The paper does not specify it; the public code .5.
        sigma_at: side of the frames, in pixels, for which ``sigma`` is given: it is multiplied by the clip's side over
            this one. Noise in grey levels has no size, but a pixel of a clip four times smaller stands for 4×4 of the
            others, whose noise averages to a quarter. null: ``sigma`` is used as it is.
    """

    def __init__(
        self, sigma: tuple[Sigma, Sigma] = (0.0, 10.0), grey: Share = 0.0, sigma_at: Side | None = None
    ) -> None:
        check_range(self, "sigma", sigma)
        self.sigma, self.grey, self.sigma_at = sigma, grey, sigma_at

    def at(self, size: int) -> "GaussianNoise":
        """The step for clips of side ``size``."""
        return scaled_sigma(self, size)

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
