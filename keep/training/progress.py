"""What a step reports: loss terms, gradient norms and times, on the console and in the records."""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from tqdm import tqdm

from keep.training.guards import StepFlags
from keep.training.records import RunLog
from keep.training.run import Run
from keep.utils.logging import log


@dataclass
class StepReport:
    """The results of one step.

    Attributes:
        terms: name → weighted loss term of this process, the mean over its batches.
        norms: optimizer → norm of its gradient before clipping.
        skipped: whether the step was skipped because of a value that was not finite.
        flags: what is still to be read: whether the step was finite. None: it has been read.
    """

    terms: dict[str, torch.Tensor]
    norms: dict[str, torch.Tensor]
    skipped: bool = False
    flags: StepFlags | None = None

    def means(self, run: Run) -> dict[str, float]:
        """The terms, as means over all processes. All processes call it."""
        return dict(zip(self.terms, run.ranks.mean(torch.stack(list(self.terms.values()))).tolist(), strict=True))


class Progress:
    """A progress bar on a terminal; a line every log interval anywhere (also in ``train.log``).

    A line: loss terms, learning rate, share of time spent waiting for data, seconds a step, time left.

    Args:
        name: of the run.
        total: its steps.
        start: steps already done.
        enabled: False on all ranks but the first: times are measured, but nothing is shown.
    """

    def __init__(self, name: str, total: int, start: int, enabled: bool = True) -> None:
        self._name, self._total, self._enabled = name, total, enabled
        shown = enabled and sys.stderr.isatty()
        self._bar = tqdm(
            total=total, initial=start, desc=name, unit="step", dynamic_ncols=True, smoothing=0.05, disable=not shown
        )  # fmt: skip
        self._steps, self._waited, self._busy = 0, 0.0, 0.0

    def step(
        self, step: int, waited: float, busy: float, values: Mapping[str, float] | None, lr: float
    ) -> dict[str, float]:
        """Count one step that waited ``waited`` seconds for data and then took ``busy`` seconds.

        With ``values``, log the line and return the times as scalars; else return ``{}``.
        """
        self._steps, self._waited, self._busy = self._steps + 1, self._waited + waited, self._busy + busy
        self._bar.update(1)
        if values is None:
            return {}
        each = (self._waited + self._busy) / self._steps
        share = self._waited / max(self._waited + self._busy, 1e-9)
        if self._enabled:
            terms = "  ".join(f"{k} {v:.4g}" for k, v in values.items())
            self._bar.set_postfix_str(f"{terms}  data {share:.0%}", refresh=False)
            log.info(
                f"{self._name}  {step}/{self._total}  {terms}  lr {lr:.2e}  "
                f"data {share:.0%}  {each:.2f} s/step  left {format_duration(each * (self._total - step))}"
            )
        self._steps, self._waited, self._busy = 0, 0.0, 0.0
        return {"time/step": each, "time/data_share": share}

    def close(self) -> None:
        self._bar.close()


def format_duration(seconds: float) -> str:
    """``3 d 04:05:06``, or ``04:05:06`` below a day."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    return f"{days} d {h:02}:{m:02}:{s:02}" if days else f"{h:02}:{m:02}:{s:02}"


def log_step(run: Run, report: StepReport, progress: Progress, records: RunLog, waited: float, start: float) -> None:
    """Count the step that has just ended; every ``log.interval`` steps, log its line and its scalars.

    All processes call it.

    Args:
        run: the run, after the step.
        report: the step's results.
        progress: the console.
        records: the run's records.
        waited: seconds that the step waited for data.
        start: ``time.perf_counter()`` after that.
    """
    means = report.means(run) if run.due(run.config.log.interval) else None
    rate = run.optimizers["net"].param_groups[0]["lr"]
    times = progress.step(run.step, waited, time.perf_counter() - start, means, rate)
    if means is not None:
        records.scalars(run.step, step_scalars(run, means, report) | times)
        for line in run.recipe.warnings():
            log.warning(f"warning: step {run.step}: {line}")


def step_scalars(run: Run, means: dict[str, float], report: StepReport) -> dict[str, float]:
    """The scalars to record of a step. All processes call it: the use of codes is summed over them."""
    scalars = {f"loss/{k}": v for k, v in means.items()} | learning_rates(run.optimizers)
    scalars |= {f"grad/{k}": v.item() for k, v in report.norms.items()}
    scalars |= {k: v.item() for k, v in run.recipe.stats.items()}
    for name, meter in run.meters.items():
        meter.counts.copy_(run.ranks.sum(meter.counts))
        scalars |= {f"{name}/{k}": v for k, v in meter.read().items()}
    if run.scaler.is_enabled():
        scalars["amp/scale"] = run.scaler.get_scale()
    if run.config.data.train.options.get("on_bad") == "skip":
        scalars["data/skipped"] = run.ranks.sum(torch.tensor(float(run.bad_clips.total()))).item()
    if run.skipped[1]:
        scalars["skipped"] = run.skipped[1]
    return scalars


def learning_rates(optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, float]:
    """``lr/OPTIMIZER`` or, for a parameter group with a ``name``, ``lr/OPTIMIZER.NAME`` → its learning rate."""
    return {
        ".".join(filter(None, (f"lr/{name}", group.get("name")))): float(group["lr"])
        for name, optimizer in optimizers.items()
        for group in optimizer.param_groups
    }
