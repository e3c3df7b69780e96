"""↓ and ↑ of eq. (9): steps that resize, and upsampling in torch for the device."""

from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from keep.config.registry import DEGRADATIONS
from keep.degradation.pipeline import check_choice, choose
from keep.utils.errors import UserError
from keep.utils.ranges import Scale, Share

_INTERPOLATION = {
    "area": cv2.INTER_AREA,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "nearest": cv2.INTER_NEAREST_EXACT,
}


@DEGRADATIONS.register()
class Downsample:
    """Downsampling by an integer factor, one filter per clip: ↓4 of eq. (9).

    The paper does not name the filter; its public code draws area .3, bilinear .3, bicubic .4. The default here is
    area: after the wide blur the choice hardly matters. Bilinear and bicubic are OpenCV's, without antialiasing.

    Args:
        scale: the factor; it must divide height and width. Supplement A.4: 4.
        modes: filters to draw from.
        probabilities: of each of ``modes``, with sum 1; null makes them equally likely.
    """

    def __init__(
        self,
        scale: Scale = 4,
        modes: tuple[Literal["area", "bilinear", "bicubic"], ...] = ("area",),
        probabilities: tuple[Share, ...] | None = None,
    ) -> None:
        check_choice(self, "modes", modes, probabilities)
        self.scale, self.modes, self.probabilities = scale, modes, probabilities

    def draw(self, rng: np.random.Generator) -> dict[str, str]:
        return {"mode": choose(rng, self.modes, self.probabilities)}

    def apply(self, clip: np.ndarray, mode: str) -> np.ndarray:
        """(T, H, W, 3) float32 → (T, H/scale, W/scale, 3)."""
        self.check(clip)
        size = (clip.shape[2] // self.scale, clip.shape[1] // self.scale)
        return np.stack([cv2.resize(frame, size, interpolation=_INTERPOLATION[mode]) for frame in clip])

    def check(self, clip: np.ndarray) -> None:
        """Raise UserError unless ``scale`` divides height and width of (T, H, W, 3)."""
        height, width = clip.shape[1:3]
        if height % self.scale or width % self.scale:
            raise UserError(f"Downsample: frames of {width}x{height} are not divisible by scale {self.scale}")

    def weights(self, mode: str) -> np.ndarray | None:
        """The filter along one axis as float64, ``scale`` taps from the first pixel of the block.

        None if it extends beyond the block (bicubic with a scale below 4), so that the frame's border matters.
        """
        x = np.abs(np.arange(self.scale) - (self.scale - 1) / 2)  # distance from the sampled point
        if mode == "area":
            return np.full(self.scale, 1 / self.scale)
        if mode == "bilinear":
            return np.maximum(0, 1 - x)
        if self.scale < 4:
            return None
        a = -0.75  # OpenCV's cubic convolution
        near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * (x**3 - 5 * x**2 + 8 * x - 4)
        return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


@DEGRADATIONS.register()
class Upsample:
    """Upsampling by an integer factor: ↑4 of eq. (9) as a step, for low-quality clips of full size.

    The networks here upsample their input on the device; this step is for other uses of the clips.

    Args:
        scale: the factor. Supplement A.4: 4.
        modes: filters to draw from.
        probabilities: of each of ``modes``, with sum 1; null makes them equally likely.
    """

    def __init__(
        self,
        scale: Scale = 4,
        modes: tuple[Literal["bilinear", "bicubic", "nearest"], ...] = ("bilinear",),
        probabilities: tuple[Share, ...] | None = None,
    ) -> None:
        check_choice(self, "modes", modes, probabilities)
        self.scale, self.modes, self.probabilities = scale, modes, probabilities

    def draw(self, rng: np.random.Generator) -> dict[str, str]:
        return {"mode": choose(rng, self.modes, self.probabilities)}

    def apply(self, clip: np.ndarray, mode: str) -> np.ndarray:
        """(T, h, w, 3) float32 → (T, h·scale, w·scale, 3)."""
        size = (clip.shape[2] * self.scale, clip.shape[1] * self.scale)
        return np.stack([cv2.resize(frame, size, interpolation=_INTERPOLATION[mode]) for frame in clip])


def upsample(lq: torch.Tensor, scale: int = 4) -> torch.Tensor:
    """↑4 of eq. (9), bilinear: float (..., 3, h, w) → (..., 3, h·scale, w·scale)."""
    return _interpolate(lq, scale, "bilinear")


def bicubic_upsample(lq: torch.Tensor, scale: int = 4) -> torch.Tensor:
    """The bicubic baseline: float (..., 3, h, w) in [-1, 1] → (..., 3, h·scale, w·scale), clamped to [-1, 1]."""
    return _interpolate(lq, scale, "bicubic").clamp(-1, 1)


def _interpolate(frames: torch.Tensor, scale: int, mode: str) -> torch.Tensor:
    flat = frames.reshape(-1, *frames.shape[-3:])
    large = F.interpolate(flat, scale_factor=scale, mode=mode, align_corners=False)
    return large.reshape(*frames.shape[:-2], *large.shape[-2:])
