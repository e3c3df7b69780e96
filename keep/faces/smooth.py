"""Landmarks over time: fills gaps and removes jitter."""

from itertools import pairwise

import numpy as np


def fill_gaps(points: np.ndarray, limit: int) -> np.ndarray:
    """Interpolate gaps of up to ``limit`` NaN rows linearly between the neighbours in time.

    Longer gaps, and gaps at either end, stay NaN.

    Args:
        points: float (T, …).
    """
    filled = np.array(points)
    if filled.size == 0:
        return filled
    flat = filled.reshape(len(filled), -1)
    known = np.flatnonzero(np.isfinite(flat).all(axis=1))
    for before, after in pairwise(known.tolist()):
        if 1 < after - before <= limit + 1:
            share = (np.arange(before + 1, after) - before)[:, None] / (after - before)
            flat[before + 1 : after] = (1 - share) * flat[before] + share * flat[after]
    return filled


def smooth(points: np.ndarray, sigma: float = 5, radius: int = 20) -> np.ndarray:
    """Eq. (10) of the supplement: filter each coordinate over time by a Gaussian of ``sigma`` frames.

    The weights of the frames within ``radius`` are scaled to sum to one, also at the ends and next to gaps. With the
    printed factor 1/(2πσ²) of G they would sum to 1/(σ√(2π)).

    Args:
        points: float (T, …); NaN rows are ignored and stay NaN.
        sigma: σ in frames; 0: no smoothing.
        radius: radius of the window, in frames.
    """
    if sigma <= 0 or len(points) == 0:
        return np.array(points)
    flat = np.asarray(points, np.float64).reshape(len(points), -1)
    known = np.asarray(np.isfinite(flat).all(axis=1))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)

    def filtered(values: np.ndarray) -> np.ndarray:
        return np.convolve(values, kernel)[radius : radius + len(values)]

    weight = filtered(known.astype(np.float64))
    result = np.full_like(flat, np.nan)
    for column in range(flat.shape[1]):
        total = filtered(np.where(known, flat[:, column], 0.0))
        result[known, column] = total[known] / weight[known]
    return result.reshape(np.shape(points)).astype(np.asarray(points).dtype)
