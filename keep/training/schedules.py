"""Learning-rate schedules: pure functions of the step, so that a resumed run needs no state for them."""

import math
from typing import Annotated

from pydantic import Field

from keep.config.registry import SCHEDULES
from keep.utils.ranges import Count


@SCHEDULES.register()
class Constant:
    """A constant learning rate."""

    def __init__(self) -> None:
        pass

    def __call__(self, base: float, step: int, total: int) -> float:
        """Learning rate of step ``step`` (0-based) of ``total``, for a base rate of ``base``."""
        return base


@SCHEDULES.register()
class MultiStep:
    """The learning rate is multiplied by ``gamma`` at each milestone.

    Args:
        milestones: steps at which it drops.
        gamma: factor of each drop.
    """

    def __init__(self, milestones: tuple[Count, ...], gamma: Annotated[float, Field(gt=0, le=1)] = 0.5) -> None:
        self.milestones = milestones
        self.gamma = gamma

    def __call__(self, base: float, step: int, total: int) -> float:
        """Learning rate of step ``step`` (0-based) of ``total``, for a base rate of ``base``."""
        return base * self.gamma ** sum(step >= m for m in self.milestones)


@SCHEDULES.register()
class Cosine:
    """Half a cosine from the base rate to ``eta_min`` over the run.

    Args:
        eta_min: learning rate at the last step; at most that of the first.
    """

    def __init__(self, eta_min: Annotated[float, Field(ge=0, le=100)] = 0.0) -> None:
        self.eta_min = eta_min

    def __call__(self, base: float, step: int, total: int) -> float:
        """Learning rate of step ``step`` (0-based) of ``total``, for a base rate of ``base``."""
        done = min(step / max(total - 1, 1), 1.0)
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * done)) / 2
