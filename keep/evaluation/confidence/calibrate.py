"""Split conformal calibration of the intervals of a head, on people that it has not seen.

The head's quantiles are moved so that the intervals hold the stated share of the blocks of the calibration clips
(Romano et al., "Conformalized quantile regression", NeurIPS 2019), below and above by themselves, and in each stratum
of frames by itself: mildly degraded clips do not pay for heavily degraded ones. Blocks of a clip are far from
independent: the share holds over people, and a single clip can be far from it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from keep.archs.confidence import STRATA, ConfidenceHead, to_log


@torch.no_grad()
def predict(head: ConfidenceHead, clip: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Quantiles of the log errors (T, targets, 3, b, b), not calibrated, and the true log errors (T, targets, b, b)."""
    return head(torch.from_numpy(clip["evidence"])), to_log(torch.from_numpy(clip["errors"]))


def inside(quantiles: Tensor, truth: Tensor) -> Tensor:
    """Which blocks the intervals hold: bool (T, targets, b, b)."""
    return (truth >= quantiles[:, :, 0]) & (truth <= quantiles[:, :, 2])


@torch.no_grad()
def calibrate(head: ConfidenceHead, clips: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Set the strata and the shifts of ``head``; what the calibration clips say of them afterwards, as plain data."""
    head.eval()
    head.shift.zero_()
    pairs = [predict(head, clip) for clip in clips]
    means = torch.cat([quantiles[:, 0, 1].mean((1, 2)) for quantiles, _ in pairs])
    head.edges.copy_(torch.quantile(means, torch.linspace(0, 1, STRATA + 1)[1:-1]))
    quantiles, truth = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    strata = head.stratum(quantiles)
    for target in range(truth.shape[1]):
        for stratum in range(STRATA):
            chosen = strata == stratum
            ends = quantiles[chosen, target][:, [0, 2]].unbind(1)
            head.shift[target, :, stratum] = _shifts(ends, truth[chosen, target], head.tails)
    held = [inside(head.calibrated(q), y).float().mean((0, 2, 3)) for q, y in pairs]
    return {
        "clips": len(pairs),
        "frames": len(truth),
        "held": torch.stack(held).mean(0).tolist(),
        "least": torch.stack(held).amin(0).tolist(),
    }


def _shifts(quantiles: Sequence[Tensor], truth: Tensor, tails: Sequence[float]) -> Tensor:
    """(2,): how far the low and the high end move outwards; low and high end, and the truth, (n, b, b) each."""
    sides = [(quantiles[0] - truth).flatten().numpy(), (truth - quantiles[1]).flatten().numpy()]
    if not len(sides[0]):
        return torch.zeros(2)
    return torch.tensor([float(np.quantile(side, 1 - tail)) for side, tail in zip(sides, tails, strict=True)])
