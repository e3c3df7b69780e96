"""FVD: distance between the distributions of restored and true clips."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from keep.config.registry import METRICS
from keep.metrics.base import Clip, SetMetric
from keep.utils.errors import UserError
from keep.utils.paths import expand
from keep.utils.ranges import Batch
from keep.utils.torchscript import load_torchscript


@METRICS.register()
class FVD(SetMetric):
    """Fréchet video distance (Unterthiner et al., 2018): I3D features of clips, two Gaussians, their distance.

    Each clip is cut into windows of ``frames`` frames from its start; a window is one sample, and a shorter rest is
    dropped. The value falls as the number of samples grows: compare only tables with equal numbers. Not in the paper.

    Args:
        weights: I3D (Kinetics-400) as TorchScript, as StyleGAN-V publishes it: ``i3d_torchscript.pt``. It is called
            with float (N, 3, T, H, W) in [0, 255], ``rescale=True, resize=True, return_features=True``.
        frames: length of a window.
        at_least: smallest number of samples; fewer raise an error.
    """

    decimals = 2

    def __init__(self, weights: Path, frames: Batch = 16, at_least: Annotated[int, Field(ge=2, le=10**6)] = 16) -> None:
        self.name, self.higher_is_better = f"FVD (I3D, {frames} frames)", False
        self.frames, self.at_least = frames, at_least
        self.network = load_torchscript(weights)
        self.files = (expand(weights),)

    @torch.no_grad()
    def samples(self, clip: Clip) -> np.ndarray:
        network = self.network.to(clip.frames.device)
        windows = [w for w in clip.frames.split(self.frames) if len(w) == self.frames]
        found = [
            network(w.float().transpose(0, 1)[None], rescale=True, resize=True, return_features=True).flatten(1)
            for w in windows
        ]
        return torch.cat(found).double().cpu().numpy() if found else np.zeros((0, 0))

    def value(self, outputs: Sequence[np.ndarray], targets: Sequence[np.ndarray]) -> float:
        a, b = (np.concatenate([s for s in samples if len(s)] or [np.zeros((0, 1))]) for samples in (outputs, targets))
        if min(len(a), len(b)) < self.at_least:
            raise UserError(
                f"FVD of {min(len(a), len(b))} windows of {self.frames} frames is meaningless: "
                f"it needs {self.at_least} (option at_least), and hundreds for a stable value"
            )
        return frechet_distance(a, b)


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Of the Gaussians fitted to samples (n, D) and (m, D): |μ₁ − μ₂|² + Tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½)."""
    apart = a.mean(0) - b.mean(0)
    a, b = ((x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (a, b))  # Σ₁ = aᵀa
    # Tr (Σ₁ Σ₂)^½ is the sum of the singular values of a bᵀ: exact, however few the samples.
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(apart @ apart + (a**2).sum() + (b**2).sum() - 2 * cross)
