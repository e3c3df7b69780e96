"""The error model: from the evidence of a frame, how far its blocks are likely to be from the truth."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import Annotated

import torch
import torch.nn as nn
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from keep.archs.evidence import EVIDENCE
from keep.config.registry import ARCHS
from keep.utils.errors import UserError
from keep.utils.ranges import Depth, Width

TARGETS = ("luma", "LPIPS")
"""What is predicted of a block: mean |ŷ − y| of luma in grey levels of 255, and its mean LPIPS distance."""
FLOORS = (0.25, 0.002)
"""Added to an error before its logarithm is taken: smaller errors of a target are all the same."""
LIMITS = (8.0, 0.15)
"""A block whose errors are below these shows what was there, for the eye: see ``confidence``."""
RAMP = 0.2
STRATA = 3

Level = Annotated[float, Field(gt=0.5, lt=1)]
Below = Annotated[float, Field(gt=0, lt=1)]


@dataclass
class ErrorBands:
    """The error to expect of each block, (N, 2, S/8, S/8): the channels are :data:`TARGETS`.

    Attributes:
        low: lower end of the interval that holds the true error with the head's ``level``.
        middle: as often above as below the true error.
        high: upper end of the interval.
        tails: shares of the true errors that are expected below and above the interval.
    """

    low: Tensor
    middle: Tensor
    high: Tensor
    tails: tuple[float, float] = (0.05, 0.05)

    def below(self, limits: Sequence[float] = LIMITS) -> Tensor:
        """Probability that the errors of a block are below ``limits``, one for each target: (N, 2, S/8, S/8).

        Below and above the middle, the logarithm of the error is taken for normally distributed.
        """
        low, middle, high = (to_log(x) for x in (self.low, self.middle, self.high))
        distance = to_log(middle.new_tensor(limits).view(1, -1, 1, 1)) - middle
        deviations = [NormalDist().inv_cdf(1 - tail) for tail in self.tails]
        sigma = torch.where(distance > 0, (high - middle) / deviations[1], (middle - low) / deviations[0])
        return torch.special.ndtr(distance / sigma.clamp_min(1e-3))

    def confidence(self) -> Tensor:
        """Probability that a block shows what was there: the smaller of :meth:`below`, (N, 1, S/8, S/8)."""
        return self.below().amin(1, keepdim=True)


@ARCHS.register()
class ConfidenceHead(nn.Module):
    """Predicts the distribution of each block's error from the evidence of one frame.

    A few convolutions over the grid of blocks, with the position of the block and, after the first, the mean over the
    face as context. For each target it gives three quantiles of the logarithm of the error: the middle one, and the
    ends of an interval. Calibration moves the ends (split conformal prediction; Romano et al., NeurIPS 2019) by an
    amount for each stratum: frames with about the same predicted error.

    Args:
        evidence: names of the maps it reads, of :data:`keep.archs.evidence.EVIDENCE`. By default all but ``size``:
            in training it would say which degradation was drawn.
        width: channels of the hidden layers.
        layers: hidden convolutions.
        level: share of the true errors that the intervals are to hold.
        below: share of the others that are below the interval. Errors have a long tail upwards: an interval is
            narrower if it cuts off more of that.
    """

    edges: Tensor
    shift: Tensor

    def __init__(
        self,
        evidence: tuple[str, ...] = tuple(name for name in EVIDENCE if name != "size"),
        width: Width = 32,
        layers: Depth = 3,
        level: Level = 0.9,
        below: Below = 0.2,
    ) -> None:
        super().__init__()
        if unknown := [name for name in evidence if name not in EVIDENCE]:
            raise UserError(f"evidence: {', '.join(unknown)}: no such map; known: {', '.join(EVIDENCE)}")
        self.level, self.tails = level, ((1 - level) * below, (1 - level) * (1 - below))
        self.channels = [list(EVIDENCE).index(name) for name in evidence]
        self.norm = nn.BatchNorm2d(len(evidence), affine=False)
        sizes = [len(evidence) + 2] + [width] * layers
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, padding_mode="replicate") for a, b in pairwise(sizes))
        self.context = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.out = nn.Conv2d(width, 3 * len(TARGETS), 1)
        self.register_buffer("edges", torch.full((STRATA - 1,), torch.inf))
        self.register_buffer("shift", torch.zeros(len(TARGETS), 2, STRATA))

    def forward(self, evidence: Tensor) -> Tensor:
        """(N, maps, b, b) → quantiles of the log errors (N, targets, 3, b, b), ascending, not calibrated."""
        x = self.norm(compress(evidence[:, self.channels].float()))
        n, _, h, w = x.shape
        rows, columns = (torch.linspace(-1, 1, k, device=x.device) for k in (h, w))
        place = torch.stack([rows[:, None].expand(h, w), columns.expand(h, w)]).expand(n, 2, h, w)
        x = torch.cat([x, place], dim=1)
        for i, (conv, context) in enumerate(zip(self.convs, self.context, strict=True)):
            y = F.silu(conv(x))
            y = y + context(y.mean((2, 3)))[..., None, None]
            x = y if i == 0 else x + y
        middle, below, above = self.out(x).unflatten(1, (len(TARGETS), 3)).unbind(2)
        return torch.stack([middle - F.softplus(below), middle, middle + F.softplus(above)], dim=2)

    def stratum(self, quantiles: Tensor) -> Tensor:
        """Number of the stratum of each frame, (N,): by its mean predicted error of luma."""
        return torch.bucketize(quantiles[:, 0, 1].mean((1, 2)), self.edges)

    def calibrated(self, quantiles: Tensor) -> Tensor:
        """The quantiles with the ends of the intervals moved."""
        shift = self.shift[:, :, self.stratum(quantiles)].permute(2, 0, 1)[..., None, None]  # (N, targets, 2, 1, 1)
        low, middle, high = quantiles.unbind(2)
        low = torch.minimum(low - shift[:, :, 0], middle)
        return torch.stack([low, middle, torch.maximum(high + shift[:, :, 1], middle)], dim=2)

    @torch.no_grad()
    def bands(self, evidence: Tensor) -> ErrorBands:
        """The calibrated prediction in grey levels and LPIPS: (N, maps, b, b) → bands of (N, 2, b, b)."""
        low, middle, high = from_log(self.calibrated(self(evidence))).unbind(2)
        return ErrorBands(low, middle, high, self.tails)


def compress(evidence: Tensor) -> Tensor:
    """Maps spread over several orders of magnitude become comparable: sign(x) · log(1 + 100·|x|)."""
    return torch.sign(evidence) * torch.log1p(100 * evidence.abs())


def to_log(errors: Tensor) -> Tensor:
    """Errors (N, targets, …) → their logarithms, with :data:`FLOORS` added."""
    floors = errors.new_tensor(FLOORS).view(1, -1, *[1] * (errors.dim() - 2))
    return torch.log(errors + floors)


def from_log(values: Tensor) -> Tensor:
    """The inverse of :func:`to_log`, at least 0."""
    floors = values.new_tensor(FLOORS).view(1, -1, *[1] * (values.dim() - 2))
    return (values.exp() - floors).clamp_min(0)


def blend(output: Tensor, lq: Tensor, confidence: Tensor, least: float) -> Tensor:
    """``output`` where the confidence is at least ``least``, the input where it is :data:`RAMP` lower, between both.

    Args:
        output: ŷ (N, 3, S, S).
        lq: the input, upsampled, (N, 3, S, S).
        confidence: (N, 1, S/8, S/8), 0 to 1.
        least: 0 to 1; 0 keeps the output.
    """
    if least <= 0:
        return output
    share = ((confidence - least) / RAMP + 1).clamp(0, 1)
    share = F.avg_pool2d(share, 3, stride=1, padding=1, count_include_pad=False)  # no seam along blocks
    share = F.interpolate(share, output.shape[-2:], mode="bilinear", align_corners=False)
    return share * output + (1 - share) * lq.to(output.dtype)
