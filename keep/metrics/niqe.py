"""NIQE: how natural a frame looks, without a reference frame."""

import importlib.util
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from keep.config.registry import METRICS
from keep.metrics.base import Clip, Metric
from keep.utils.errors import UserError
from keep.utils.paths import expand

PATCH = 96
WINDOW, SIGMA = 7, 7 / 6
SHAPES = torch.arange(200, 10001, dtype=torch.float64) / 1000
"""Candidates for the shape α of a generalised Gaussian."""


@METRICS.register()
class NIQE(Metric):
    """Natural image quality evaluator (Mittal et al., IEEE SPL 2013) of the output; lower is more natural.

    On the luma of frames of at least 96×192: a Gaussian is fitted to the features of 96×96 patches at two scales, and
    the score is its distance to that of natural images. The ground truth is not used. Not in the paper.

    Args:
        weights: the Gaussian of natural images, an .npz file with ``mu_pris_param`` (1, 36) and ``cov_pris_param``
            (36, 36); null uses the authors' file, which the installed package basicsr contains.
    """

    needs_truth, decimals = False, 3

    def __init__(self, weights: Path | None = None) -> None:
        self.name, self.higher_is_better = "NIQE", False
        file = expand(weights) if weights is not None else _basicsr_file()
        self.mean, self.covariance = _load_natural(file)
        self.files = (file,)

    def measure(self, output: Clip, target: Clip) -> np.ndarray:
        height, width = output.frames.shape[-2:]
        if (height // PATCH) * (width // PATCH) < 2:
            raise UserError(f"NIQE needs frames of at least two patches of {PATCH}×{PATCH}, not {width}×{height}")
        return np.array([self.distance(features(luma(frame))) for frame in output.frames])

    def distance(self, found: np.ndarray) -> float:
        """Eq. (10): √((ν₁ − ν₂)ᵀ ((Σ₁ + Σ₂)/2)⁻¹ (ν₁ − ν₂)) for the features (n, 36) of a frame's patches."""
        found = found[~np.isnan(found).any(1)]  # a patch without texture has no features
        if len(found) < 2:
            return float("nan")
        apart = self.mean - found.mean(0)
        return float(np.sqrt(apart @ np.linalg.pinv((self.covariance + np.cov(found, rowvar=False)) / 2) @ apart))


def _basicsr_file() -> Path:
    """The parameter file in the installed package basicsr, located without importing it: its import breaks easily."""
    package = importlib.util.find_spec("basicsr")
    if package is None or not package.submodule_search_locations:
        raise UserError("NIQE needs the parameters in the package basicsr: pip install --no-deps basicsr==1.4.2")
    return Path(package.submodule_search_locations[0]) / "metrics/niqe_pris_params.npz"


def _load_natural(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Mean (36,) and covariance (36, 36) of the features of natural images."""
    try:
        with np.load(path, allow_pickle=False) as file:
            mean, covariance = file["mu_pris_param"].reshape(36), file["cov_pris_param"].reshape(36, 36)
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"NIQE: {path} does not hold its parameters: {error}") from None
    return mean.astype(np.float64), covariance.astype(np.float64)


def luma(frame: Tensor) -> Tensor:
    """Y of ITU-R BT.601, rounded: uint8 RGB (3, H, W) → float64 (H, W), 16 to 235."""
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64, device=frame.device) / 255
    return (torch.einsum("chw,c->hw", frame.double(), weights) + 16).round()


def features(image: Tensor) -> np.ndarray:
    """36 features of each whole 96×96 patch: float64 (H, W) in [0, 255] → (n, 36), 18 for each of two scales."""
    h, w = (side // PATCH * PATCH for side in image.shape)
    image = image[:h, :w]
    both = [_patch_features(normalised(x), size) for x, size in ((image, PATCH), (half(image), PATCH // 2))]
    return torch.cat(both, dim=1).cpu().numpy()


def normalised(image: Tensor) -> Tensor:
    """Eq. (1): (I − μ) / (σ + 1), μ and σ of a 7×7 Gaussian window; borders repeat the edge. (H, W) → (H, W)."""
    g = torch.exp(-((torch.arange(WINDOW, dtype=image.dtype, device=image.device) - WINDOW // 2) ** 2) / (2 * SIGMA**2))
    g = g / g.sum()
    padded = F.pad(torch.stack([image, image**2])[:, None], (WINDOW // 2,) * 4, mode="replicate")
    mean, square = F.conv2d(F.conv2d(padded, g[None, None, :, None]), g[None, None, None, :])[:, 0]
    return (image - mean) / ((square - mean**2).abs().sqrt() + 1)


def half(image: Tensor) -> Tensor:
    """Half the size, bicubic with antialiasing; borders are mirrored, as MATLAB does. (H, W) → (H/2, W/2)."""
    border = 4  # the widened cubic reaches that far
    mirrored = torch.from_numpy(np.pad(image.cpu().numpy(), border, mode="symmetric")).to(image.device)
    size = [side // 2 for side in mirrored.shape]
    small = F.interpolate(mirrored[None, None], size=size, mode="bicubic", antialias=True)[0, 0]
    return small[border // 2 : -border // 2, border // 2 : -border // 2]


def _patch_features(image: Tensor, size: int) -> Tensor:
    """Section II of the paper: the image's own distribution, and that of products with four neighbours. → (n, 18)."""
    patches = image.unfold(0, size, size).unfold(1, size, size).reshape(-1, size, size)
    shape, left, right = asymmetric_gaussian(patches)
    found = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = asymmetric_gaussian(patches * patches.roll(shift, dims=(1, 2)))
        mean = (right - left) * torch.exp(torch.lgamma(2 / shape) - torch.lgamma(1 / shape))  # eq. (8)
        found += [shape, mean, left, right]
    return torch.stack(found, dim=1)


def asymmetric_gaussian(patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Moment fit of the asymmetric generalised Gaussian, eq. (4): (n, h, w) → shape α, scales β_left, β_right (n,).

    Lasmar et al., ICIP 2009: with γ the ratio of the two sides' root mean squares and r̂ = E|x|² / E[x²], α solves
    Γ(2/α)² / (Γ(1/α) Γ(3/α)) = r̂ (γ³ + 1)(γ + 1) / (γ² + 1)².
    """
    x = patches.flatten(1)
    squares = x**2
    left, right = (((squares * side).sum(1) / side.sum(1)).sqrt() for side in (x < 0, x > 0))
    ratio = left / right
    wanted = x.abs().mean(1) ** 2 / squares.mean(1) * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shapes = SHAPES.to(x.device)
    reached = torch.exp(2 * torch.lgamma(2 / shapes) - torch.lgamma(1 / shapes) - torch.lgamma(3 / shapes))
    shape = shapes[(reached - wanted[:, None]).abs().argmin(1)]
    shape = shape.where(~wanted.isnan(), torch.nan)
    scale = torch.exp((torch.lgamma(1 / shape) - torch.lgamma(3 / shape)) / 2)
    return shape, left * scale, right * scale
