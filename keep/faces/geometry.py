"""Overlap of boxes."""

import numpy as np


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1)."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(sides.clip(0).prod())
    union = float((a[2:] - a[:2]).clip(0).prod() + (b[2:] - b[:2]).clip(0).prod()) - shared
    return shared / union if union > 0 else 0.0
