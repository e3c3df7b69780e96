"""Is a difference more than noise? Bootstrap intervals over clips, and paired differences of two restorers.

The clip is the unit: frames of one clip are far from independent.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

EXACT_UP_TO = 14
"""Clips for which all 2ⁿ sign changes are tried; beyond, a sample of them."""


@dataclass(frozen=True)
class Interval:
    """A mean over clips and its confidence interval; ``low`` and ``high`` are NaN for fewer than two clips.

    Attributes:
        mean: of the scores that are there.
        low: end of the interval.
        high: end of the interval.
        clips: how many scores are there.
    """

    mean: float
    low: float
    high: float
    clips: int


@dataclass(frozen=True)
class Difference(Interval):
    """The mean of a − b over clips, its interval, and how likely so large a mean is if nothing but chance is at work.

    Attributes:
        p: two-sided, by random sign changes of the differences; NaN for fewer than two clips.
    """

    p: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def bootstrap(scores: np.ndarray, level: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Mean of the clips' scores and its percentile bootstrap interval (Efron, 1979).

    With fewer than some twenty clips such an interval is too short: it then says at least how uncertain the mean is.

    Args:
        scores: (N,), one a clip; NaN where a clip has none, and an infinite one makes the mean infinite.
        level: of confidence.
        resamples: how many draws of N clips with replacement.
        seed: of the draws; equal calls give equal intervals.
    """
    there = np.asarray(scores, np.float64)
    there = there[~np.isnan(there)]
    n = len(there)
    mean = float(there.mean()) if n else float("nan")
    if n < 2 or not np.isfinite(there).all():
        return Interval(mean, float("nan"), float("nan"), n)
    drawn = there[np.random.default_rng(seed).integers(n, size=(resamples, n))].mean(1)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), n)


def paired(a: np.ndarray, b: np.ndarray, level: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Difference:
    """The difference of two restorers on the same clips: how much of it would be there by chance?

    Clips differ far more from one another than restorers do; differences clip by clip take that out.

    Args:
        a: (N,), one restorer's scores; clips where a difference is not finite are left out.
        b: (N,), the other's, in the same order.
        level: of confidence.
        resamples: how many draws.
        seed: of the draws.
    """
    with np.errstate(invalid="ignore"):  # ∞ − ∞
        difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    difference = difference[np.isfinite(difference)]
    interval = bootstrap(difference, level, resamples, seed)
    return Difference(interval.mean, interval.low, interval.high, interval.clips, _p(difference, resamples, seed))


def _p(difference: np.ndarray, resamples: int, seed: int) -> float:
    """Share of sign changes whose mean is at least as far from zero (Fisher's randomisation test)."""
    n = len(difference)
    if n < 2:
        return float("nan")
    if n <= EXACT_UP_TO:
        signs = np.array(list(product((1, -1), repeat=n)))  # the first is the observed one
    else:
        signs = np.random.default_rng(seed).choice((1, -1), size=(resamples, n))
        signs = np.concatenate([np.ones((1, n), int), signs])
    sums = np.abs(signs @ difference)
    return float((sums >= sums[0] * (1 - 1e-12)).mean())
