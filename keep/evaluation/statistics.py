"""Is a difference significant? Bootstrap intervals over clips, and paired differences of two restorers.

The unit is the clip: frames of one clip are far from independent.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

EXACT_UP_TO = 14
"""Up to this many clips all 2ⁿ sign changes are tried; above, a random sample of them."""


@dataclass(frozen=True)
class Interval:
    """A mean over clips and its confidence interval; ``low`` and ``high`` are NaN for fewer than two clips.

    Attributes:
        mean: of the scores that exist.
        low: lower end of the interval.
        high: upper end of the interval.
        clips: how many scores exist.
    """

    mean: float
    low: float
    high: float
    clips: int


@dataclass(frozen=True)
class Difference(Interval):
    """The mean of a − b over clips, its interval, and the probability of so large a mean by chance alone.

    Attributes:
        p: two-sided, by random sign changes of the differences; NaN for fewer than two clips.
    """

    p: float

    @property
    def clear(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


def bootstrap(scores: np.ndarray, level: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Mean of the clips' scores and its percentile bootstrap interval (Efron, 1979).

    With fewer than about twenty clips such an interval is too short: it is a lower bound of the uncertainty.

    Args:
        scores: (N,), one per clip; NaN for a clip without a score. An infinite score makes the mean infinite.
        level: of confidence.
        resamples: number of draws of N clips with replacement.
        seed: of the draws; equal calls give equal intervals.
    """
    known = np.asarray(scores, np.float64)
    known = known[~np.isnan(known)]
    n = len(known)
    mean = float(known.mean()) if n else float("nan")
    if n < 2 or not np.isfinite(known).all():
        return Interval(mean, float("nan"), float("nan"), n)
    drawn = known[np.random.default_rng(seed).integers(n, size=(resamples, n))].mean(1)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), n)


def paired(a: np.ndarray, b: np.ndarray, level: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Difference:
    """The difference of two restorers on the same clips, and whether it could be chance.

    Clips differ far more from one another than restorers do; differences clip by clip remove that variation.

    Args:
        a: (N,), scores of one restorer; clips without a finite difference are excluded.
        b: (N,), scores of the other, in the same order.
        level: of confidence.
        resamples: number of draws.
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
