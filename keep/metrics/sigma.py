"""Fluctuation of another metric over a clip: σ_IDS and σ_AKD of table A2."""

from typing import Annotated, Any

import numpy as np

from keep.config.registry import METRICS
from keep.metrics.base import Clip, Metric
from keep.utils.errors import UserError
from keep.utils.ranges import Factor


@METRICS.register()
class Sigma(Metric):
    """Standard deviation of a metric over the frames of a clip: ``{type: Sigma, of: {type: IDS, …}}`` is σ_IDS.

    The supplement does not define its σ; this one divides by the number of frames that have a value, and is averaged
    over clips. It reuses the values of that metric.

    Args:
        of: the metric.
        factor: tables show the value times this; table A2 has 100 for σ_IDS and 1 for σ_AKD.
    """

    def __init__(self, of: Annotated[Any, METRICS], factor: Factor = 1) -> None:
        if not isinstance(of, Metric) or not of.per_frame:
            raise UserError(f"Sigma needs a metric with a value for every frame; {of.name} has none")
        self.of, self.factor, self.first = of, factor, of.first
        self.name, self.higher_is_better, self.per_frame = f"σ_{of.name}", False, False
        self.needs_truth = of.needs_truth

    def describe(self) -> str:
        return f"Standard deviation over a clip's frames, mean over clips, of: {self.of.describe()}"

    def measure(self, output: Clip, target: Clip) -> np.ndarray:
        return self.of(output, target)

    def score(self, values: np.ndarray) -> float:
        valid = values[~np.isnan(values)]
        with np.errstate(invalid="ignore"):  # the σ of infinite values is NaN
            return float(valid.std()) if len(valid) else float("nan")
