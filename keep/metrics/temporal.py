"""Steadiness over time: warping error and temporal LPIPS. Not in the paper."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from keep.config.registry import METRICS, Flow
from keep.flow.gmflow import GMFlow
from keep.flow.warp import consistency_mask, warp
from keep.losses.perceptual import LPIPSDistance
from keep.metrics.base import Clip, Metric
from keep.metrics.lpips import steps
from keep.utils.errors import UserError

PAIRS_AT_ONCE = 4


@METRICS.register()
class WarpingError(Metric):
    """E_warp (Lai et al., ECCV 2018): distance of a frame to its predecessor, warped by the ground truth's flow.

    Mean over valid pixels and channels of (ŷ_t − ω(ŷ_{t−1}))², frames in [0, 1]. A pixel is valid if the flow passes
    the forward-backward check |f + b|² ≤ .01 (|f|² + |b|²) + .5 and is not a motion boundary,
    |∇u|² + |∇v|² ≤ .01 |f|² + .002 (Sundaram et al., ECCV 2010).

    Of clips without ground truth the flow is that of the low-quality input.

    Args:
        flow: the flow estimator; the metric's name includes its name.
    """

    needs_truth, first, factor, decimals = False, 1, 1000, 5

    def __init__(self, flow: Flow) -> None:
        if isinstance(flow, GMFlow):
            raise UserError("WarpingError: GMFlow's weights exist only inside a KEEP checkpoint; use flow raft or dis")
        self.flow = flow
        self.name, self.higher_is_better = f"E_warp ({getattr(flow, 'name', type(flow).__name__)})", False

    def measure(self, output: Clip, target: Clip) -> np.ndarray:
        values = [np.nan]
        for t, (flow, valid) in enumerate(flows(target, self.flow), start=1):
            previous, current = ((f.float() / 255)[None] for f in output.frames[t - 1 : t + 1])
            error = (current - warp(previous, flow[None])).square().mean(1)[valid[None]]
            values.append(error.double().mean().item())  # NaN where no pixel is valid
        return np.array(values)


def flows(clip: Clip, estimator: Any) -> list[tuple[Tensor, Tensor]]:
    """For each frame after the first: flow to the previous frame (2, H, W) in pixels, and its valid pixels (H, W)."""

    def compute() -> list[tuple[Tensor, Tensor]]:
        network, found = estimator.to(clip.frames.device), []
        for start in range(1, len(clip), PAIRS_AT_ONCE):
            stop = min(start + PAIRS_AT_ONCE, len(clip))
            current, previous = clip.floats(start, stop), clip.floats(start - 1, stop - 1)
            forward, backward = network(current, previous), network(previous, current)
            valid = consistency_mask(forward, backward)[:, 0].bool() & ~motion_boundary(forward)
            found += zip(forward, valid, strict=True)
        return found

    return clip.once(("flow", estimator), compute)


def motion_boundary(flow: Tensor) -> Tensor:
    """|∇u|² + |∇v|² > .01 |f|² + .002 (Sundaram et al. 2010): (N, 2, H, W) → bool (N, H, W)."""
    slopes = torch.gradient(flow, dim=(-2, -1))
    return sum(s.square().sum(1) for s in slopes) > 0.01 * flow.square().sum(1) + 0.002


@METRICS.register()
class TemporalLPIPS(Metric):
    """tLP (Chu et al., TecoGAN, 2020): |LPIPS(ŷ_t, ŷ_{t−1}) − LPIPS(y_t, y_{t−1})|, y being the ground truth.

    Zero if the output changes from frame to frame as much as the ground truth does.

    Args:
        net: the backbone; see ``LPIPS``.
        weights: torchvision's file of that backbone; null searches the caches, then downloads it.
    """

    first, factor, decimals = 1, 100, 3

    def __init__(self, net: Literal["alex", "vgg", "squeeze"] = "alex", weights: Path | None = None) -> None:
        self.name, self.higher_is_better = f"tLPIPS-{net}", False
        self.distance = LPIPSDistance(net, weights)

    def measure(self, output: Clip, target: Clip) -> np.ndarray:
        changes = [
            c.once(("steps", self.distance), lambda c=c: steps(self.distance, c.frames)) for c in (output, target)
        ]
        return np.concatenate([[np.nan], np.abs(changes[0] - changes[1])])
