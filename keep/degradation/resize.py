"""↓ and ↑ of eq. (9): downsampling as a degradation step, upsampling as torch functions for the device."""

from typing import Annotated, Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field

from keep.errors import UserError
from keep.registry import DEGRADATIONS

_INTERPOLATION = {"area": cv2.INTER_AREA, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}


@DEGRADATIONS.register()
class Downsample:
    """Downsampling by a whole factor, one filter a clip: ↓4 of eq. (9).

    The paper does not name the filter; its public code draws area .3, bilinear .3, bicubic .4. Ours is area
    unless told otherwise: the blur before it is wide, so the choice hardly shows. Bilinear and bicubic are
    OpenCV's, without antialiasing.

    Args:
        scale: the factor; height and width must be divisible by it. Supplement A.4: 4.
        modes: filters to draw from, all equally likely.
    """

    def __init__(
        self,
        scale: Annotated[int, Field(ge=1)] = 4,
        modes: tuple[Literal["area", "bilinear", "bicubic"], ...] = ("area",),
    ) -> None:
        if not modes:
            raise UserError("Downsample: modes is empty; name at least one of area, bilinear, bicubic")
        self.scale = scale
        self.modes = modes

    def draw(self, rng: np.random.Generator) -> dict[str, str]:
        return {"mode": self.modes[int(rng.integers(len(self.modes)))]}

    def apply(self, clip: np.ndarray, mode: str) -> np.ndarray:
        """(T, H, W, 3) float32 → (T, H/scale, W/scale, 3)."""
        height, width = clip.shape[1:3]
        if height % self.scale or width % self.scale:
            raise UserError(f"Downsample: frames of {width}x{height} are not divisible by scale {self.scale}")
        size = (width // self.scale, height // self.scale)
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
