"""Blur: the kernel k_σ of eq. (9)."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

import cv2
import numpy as np
from pydantic import Field

from keep.config.registry import DEGRADATIONS
from keep.degradation.noise import GaussianNoise
from keep.degradation.pipeline import Drawn, check_range, scaled_sigma
from keep.degradation.resize import Downsample
from keep.utils.errors import UserError
from keep.utils.logging import log
from keep.utils.ranges import Share, Side, Sigma

PAPER_SIZE, STRONGEST = 512, 10
"""Side of the paper's frames in pixels, and its strongest σ there (supplement A.4)."""


@DEGRADATIONS.register()
class GaussianBlur:
    """Gaussian blur, one kernel per clip: y ⊛ k_σ of eq. (9).

    The kernel extends to 4σ, so that its true σ is the drawn one; borders are reflected. (The public code cuts its
    kernel to 21 taps, which turns σ = 10 into about 5.6.)

    Args:
        sigma: range of σ in pixels of the full-size frame, drawn uniformly; 0 does not blur.
            Supplement A.4: [2, 10] in training.
        anisotropic: probability of an anisotropic kernel: σ is drawn twice, for two perpendicular axes, and their
            direction uniformly. The paper has none; the public code .3.
        taps: side of the kernel in pixels of the frame, odd; null extends it to 4σ.
        sigma_at: side of the frames, in pixels, for which ``sigma`` is given: it is multiplied by the clip's side over
            this one. null: ``sigma`` is in pixels of the clip, whatever its size.
    """

    def __init__(
        self,
        sigma: tuple[Sigma, Sigma] = (2.0, 10.0),
        anisotropic: Share = 0.0,
        taps: Annotated[int, Field(ge=1, le=1001)] | None = None,
        sigma_at: Side | None = None,
    ) -> None:
        check_range(self, "sigma", sigma)
        if taps is not None and taps % 2 == 0:
            raise UserError(f"GaussianBlur: taps must be odd, got {taps}")
        self.sigma, self.anisotropic, self.taps, self.sigma_at = sigma, anisotropic, taps, sigma_at

    def at(self, size: int) -> "GaussianBlur":
        """The step for clips of side ``size``; warns of a σ that was probably meant for larger ones."""
        largest = self.sigma[1] * PAPER_SIZE / size
        if self.sigma_at is None and size < PAPER_SIZE and largest > STRONGEST:
            log.warning(
                f"warning: GaussianBlur: sigma up to {self.sigma[1]:g} on clips of {size}×{size} is {largest:.3g} at "
                f"{PAPER_SIZE}×{PAPER_SIZE}, where the paper's strongest is {STRONGEST}; if sigma is meant for "
                f"{PAPER_SIZE}×{PAPER_SIZE}, add sigma_at: {PAPER_SIZE}"
            )
        return scaled_sigma(self, size)

    def draw(self, rng: np.random.Generator) -> dict[str, float]:
        drawn = {"sigma": float(rng.uniform(*self.sigma))}
        if self.anisotropic and rng.random() < self.anisotropic:
            drawn |= {"sigma_y": float(rng.uniform(*self.sigma)), "angle": float(rng.uniform(0, math.pi))}
        return drawn

    def apply(self, clip: np.ndarray, sigma: float, sigma_y: float | None = None, angle: float = 0.0) -> np.ndarray:
        """(T, H, W, 3) float32 → the same shape.

        ``sigma_y`` makes the kernel anisotropic: ``sigma`` along the direction ``angle`` (radians from x towards
        y), ``sigma_y`` across it.
        """
        if sigma_y is not None:
            kernel = rotated_kernel(sigma, sigma_y, angle, self.taps)
            return np.stack([cv2.filter2D(f, -1, kernel, borderType=cv2.BORDER_REFLECT_101) for f in clip])
        if sigma == 0:
            return clip
        kernel = gaussian_kernel(sigma, self.taps)
        return np.stack([cv2.sepFilter2D(f, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT_101) for f in clip])

    def fuse(self, drawn: Drawn, following: Sequence[tuple[Any, Drawn]]) -> tuple[int, Callable[..., Any]] | None:
        """With an isotropic kernel and a :class:`Downsample` next: blur only the pixels that it samples.

        There may be noise in between: ↓(y ⊛ k + n) = ↓(y ⊛ k) + ↓n.
        """
        if "sigma_y" in drawn:
            return None
        noises = []
        for count, (step, parameters) in enumerate(following, 1):
            if isinstance(step, GaussianNoise):
                noises.append((step, parameters))
            elif isinstance(step, Downsample) and (taps := step.weights(parameters["mode"])) is not None:
                kernel = np.convolve(gaussian_kernel(drawn["sigma"], self.taps), taps) if drawn["sigma"] else taps
                return count, partial(blur_and_sample, kernel=kernel, noises=noises, down=step, **parameters)
            else:
                break
        return None


def blur_and_sample(
    clip: np.ndarray, kernel: np.ndarray, noises: Sequence[tuple[GaussianNoise, Drawn]], down: Downsample, mode: str
) -> np.ndarray:
    """Blur, noise and ``down`` in one step: (T, H, W, 3) uint8 or float32 → (T, H/scale, W/scale, 3) float32.

    ``kernel`` is 1-D: that of the blur convolved with the filter of ``mode``.
    """
    down.check(clip)
    reach = (len(kernel) - down.scale) // 2
    small = np.stack([filter_and_sample(frame, kernel, reach, down.scale) for frame in clip])
    for noise, drawn in noises:
        small += down.apply(noise.field(clip.shape, **drawn), mode)
    return small


def gaussian_kernel(sigma: float, taps: int | None = None) -> np.ndarray:
    """Sampled 1-D Gaussian of radius ⌈4σ⌉, or of ``taps`` taps; float32, sum 1."""
    radius = math.ceil(4 * sigma) if taps is None else taps // 2
    x = np.arange(-radius, radius + 1)
    kernel = np.exp(-(x**2) / (2 * sigma**2))
    return (kernel / kernel.sum()).astype(np.float32)


def rotated_kernel(sigma_x: float, sigma_y: float, angle: float, taps: int | None = None) -> np.ndarray:
    """Sampled 2-D Gaussian, float32, sum 1; its axes are rotated by ``angle`` radians from x towards y."""
    radius = math.ceil(4 * max(sigma_x, sigma_y)) if taps is None else taps // 2
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    # A σ of 0 gives a line one sample wide instead of a division by zero.
    kernel = np.exp(-((along / max(sigma_x, 1e-3)) ** 2 + (across / max(sigma_y, 1e-3)) ** 2) / 2)
    return (kernel / kernel.sum()).astype(np.float32)


def filter_and_sample(frame: np.ndarray, kernel: np.ndarray, reach: int, scale: int) -> np.ndarray:
    """Filter along both axes, computed only at every ``scale``-th pixel.

    Args:
        frame: uint8 or float32 (H, W, 3); its borders are reflected.
        kernel: 1-D; its entry ``reach`` is at the sampled pixel.

    Returns:
        float32 (H / scale, W / scale, 3): Σ_j Σ_i kernel[j] kernel[i] frame[scale·y + j − reach, scale·x + i − reach].
    """
    rows = _filter_and_sample_rows(frame, kernel, reach, scale)
    return cv2.transpose(_filter_and_sample_rows(cv2.transpose(rows), kernel, reach, scale))


def _filter_and_sample_rows(frame: np.ndarray, kernel: np.ndarray, reach: int, scale: int) -> np.ndarray:
    height = frame.shape[0] // scale
    taps = -(-len(kernel) // scale)
    kernel = np.pad(kernel, (0, taps * scale - len(kernel))).astype(np.float32)
    below = max(0, (height - 1 + taps) * scale - reach - frame.shape[0])
    padded = cv2.copyMakeBorder(frame, reach, below, 0, 0, cv2.BORDER_REFLECT_101)
    one, total = np.ones(1, np.float32), None
    for phase in range(scale):  # rows phase, phase + scale, … form a small image, filtered by every scale-th tap
        part = cv2.sepFilter2D(
            padded[phase::scale], cv2.CV_32F, one, kernel[phase::scale], anchor=(0, 0), borderType=cv2.BORDER_CONSTANT
        )[:height]
        total = part if total is None else cv2.add(total, part)
    assert total is not None
    return total
