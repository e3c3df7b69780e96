"""Landmarks over time: gaps filled, jitter taken out."""

from itertools import pairwise

import numpy as np


def fill_gaps(points: np.ndarray, limit: int) -> np.ndarray:
    """Rows that are NaN, up to ``limit`` of them in a row, interpolated linearly between their neighbours in time.

    Longer gaps, and those at either end, stay NaN.

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
    """Eq. (10) of the supplement: each coordinate filtered over time by a Gaussian of ``sigma`` frames.

    The weights of the frames within ``radius`` are scaled to sum to one, also at the ends and beside gaps: as
    printed, G's factor 1/(2πσ²) would make them sum to 1/(σ√(2π)).

    Args:
        points: float (T, …); NaN rows take no part and stay NaN.
        sigma: in frames; 0 leaves the points as they are.
        radius: of the window, in frames.
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
