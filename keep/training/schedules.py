"""Learning-rate schedules: pure functions of the step, so that a resumed run needs no state for them."""

import math
from typing import Annotated

from pydantic import Field

from keep.config.registry import SCHEDULES
from keep.utils.errors import UserError
from keep.utils.ranges import Count, Weight


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


@SCHEDULES.register()
class CosineRestart:
    """Half a cosine in each of several periods (SGDR, Loshchilov & Hutter, ICLR 2017), as EDVR is trained.

    Args:
        periods: steps of each period. After the last one the learning rate stays at ``eta_min``.
        weights: factor of the base rate at the start of each period; empty: 1 for all.
        eta_min: learning rate at the end of each period.
    """

    def __init__(
        self,
        periods: tuple[Count, ...],
        weights: tuple[Weight, ...] = (),
        eta_min: Annotated[float, Field(ge=0, le=100)] = 0.0,
    ) -> None:
        if not periods or len(weights) not in (0, len(periods)):
            raise UserError(
                f"CosineRestart: weights: {len(weights)} values for {len(periods)} periods; give one for each"
            )
        self.periods, self.weights, self.eta_min = periods, weights or (1.0,) * len(periods), eta_min

    def __call__(self, base: float, step: int, total: int) -> float:
        """Learning rate of step ``step`` (0-based), for a base rate of ``base``; ``total`` has no influence."""
        for period, weight in zip(self.periods, self.weights, strict=True):
            if step < period:
                return self.eta_min + weight * (base - self.eta_min) * (1 + math.cos(math.pi * step / period)) / 2
            step -= period
        return self.eta_min
