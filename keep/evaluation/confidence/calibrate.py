"""Split conformal calibration of the intervals of a head, on people that it has not seen.

The head's quantiles are moved so that the intervals hold the stated share of the blocks of the calibration clips
(Romano et al., "Conformalized quantile regression", NeurIPS 2019), below and above by themselves, and in each stratum
of frames by itself: mildly degraded clips do not pay for heavily degraded ones. Blocks of a clip are far from
independent: the share holds over people, and a single clip can be far from it. Strata in which clips differ more get a
higher level, so that the clips held least are held about as well in all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from keep.archs.confidence import STRATA, ConfidenceHead, to_log

LEVELS = np.concatenate([np.linspace(0.7, 0.98, 57), np.linspace(0.9825, 0.9975, 7)])
"""Levels from which each stratum gets its own."""
LEAST = 0.1
"""The share of the clips that are held least, which is to be held about as well in each stratum."""


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
    for target in range(head.shift.shape[0]):
        strata = [_stratum(head, pairs, target, number) for number in range(STRATA)]
        head.shift[target] = torch.tensor(_shifts(strata, head.level), dtype=torch.float32).T
    held = [inside(head.calibrated(q), y).float().mean((0, 2, 3)) for q, y in pairs]
    return {
        "clips": len(pairs),
        "frames": len(means),
        "held": torch.stack(held).mean(0).tolist(),
        "least": torch.stack(held).amin(0).tolist(),
    }


@dataclass
class Stratum:
    """What each of :data:`LEVELS` does to one stratum.

    Attributes:
        shifts: how far the low and the high end move outwards, (levels, 2).
        held: share of the blocks of each clip in its intervals, (levels, clips).
    """

    shifts: np.ndarray
    held: np.ndarray


def _stratum(head: ConfidenceHead, pairs: Sequence[tuple[Tensor, Tensor]], target: int, number: int) -> Stratum:
    below, above = [], []  # of each clip: by how much the truth is below the low end, and above the high end
    for quantiles, truth in pairs:
        chosen = head.stratum(quantiles) == number
        if chosen.any():
            low, _, high = quantiles[chosen, target].unbind(1)
            below.append((low - truth[chosen, target]).flatten().numpy())
            above.append((truth[chosen, target] - high).flatten().numpy())
    if not below:
        return Stratum(np.zeros((len(LEVELS), 2)), np.ones((len(LEVELS), 0)))
    missed = (1 - LEVELS) / (1 - head.level)
    ends = [
        np.quantile(np.concatenate(side), 1 - tail * missed)
        for side, tail in zip((below, above), head.tails, strict=True)
    ]
    held = [
        [((b <= low) & (a <= high)).mean() for b, a in zip(below, above, strict=True)]
        for low, high in zip(*ends, strict=True)
    ]
    return Stratum(np.stack(ends, axis=1), np.array(held))


def _shifts(strata: Sequence[Stratum], level: float) -> np.ndarray:
    """(strata, 2): the shifts with which all clips are held with ``level`` on average, and the clips held least
    about as well in each stratum."""
    filled = [s for s in strata if s.held.shape[1]]
    least = [np.quantile(s.held, LEAST, axis=1) for s in filled]

    def chosen(bound: float) -> list[int]:
        return [int(np.argmax(x >= bound)) if x.max() >= bound else len(LEVELS) - 1 for x in least]

    def mean(numbers: Sequence[int]) -> float:
        return float(np.concatenate([s.held[n] for s, n in zip(filled, numbers, strict=True)]).mean())

    best = min((chosen(bound) for bound in np.linspace(0, 1, 201)), key=lambda numbers: abs(mean(numbers) - level))
    found = iter(best)
    return np.stack([s.shifts[next(found)] if s.held.shape[1] else s.shifts[0] for s in strata])
