"""A degradation pipeline: steps drawn once a clip, applied in order, recorded so that they can be replayed.

A step (registered in ``DEGRADATIONS``) has two methods:

- ``draw(rng) -> dict``: its random parameters for one clip, plain JSON data;
- ``apply(clip, **drawn) -> clip``: float32 (T, H, W, 3) RGB in [0, 255] to the same, no randomness left.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keep.errors import UserError


class Pipeline:
    """Degrades a clip by a list of steps; eq. (9) without its final ↑, which is done on the device.

    Args:
        steps: built degradation steps, applied in order.
    """

    def __init__(self, steps: Sequence[Any]) -> None:
        self.steps = tuple(steps)

    def __call__(self, clip: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Draw one set of parameters for the clip and apply it.

        Args:
            clip: uint8 (T, H, W, 3) RGB.
            rng: the only source of randomness: the same state gives the same bytes.

        Returns:
            the low-quality clip, uint8 (T, h, w, 3), and what was drawn, ``[{"type": step, …}, …]``.
        """
        drawn = [{"type": type(step).__name__, **step.draw(rng)} for step in self.steps]
        return self.replay(clip, drawn), drawn

    def replay(self, clip: np.ndarray, drawn: Sequence[dict[str, Any]]) -> np.ndarray:
        """Apply recorded parameters: the same clip and ``drawn`` give the same bytes.

        Raises:
            UserError: if ``drawn`` was recorded by other steps.
        """
        recorded, own = [d["type"] for d in drawn], [type(step).__name__ for step in self.steps]
        if recorded != own:
            raise UserError(f"cannot replay a degradation: it was recorded with steps {recorded}, these are {own}")
        clip = clip.astype(np.float32)
        for step, parameters in zip(self.steps, drawn, strict=True):
            clip = step.apply(clip, **{k: v for k, v in parameters.items() if k != "type"})
        return to_uint8(clip)


def to_uint8(clip: np.ndarray) -> np.ndarray:
    """Round to the nearest integer and clip to [0, 255]."""
    return np.rint(clip).clip(0, 255).astype(np.uint8)


def check_range(step: object, option: str, bounds: tuple[float, float]) -> None:
    """Raise UserError unless ``bounds`` is (low, high) with 0 ≤ low ≤ high."""
    low, high = bounds
    if not 0 <= low <= high:
        raise UserError(f"{type(step).__name__}: {option} must be [low, high] with 0 <= low <= high, got {bounds}")
