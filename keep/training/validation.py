"""Looking at a run while it trains: the validation clips, scored by the one evaluator, and a training clip."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from keep.config.registry import build
from keep.config.schema import TrainConfig
from keep.data.frames import to_uint8
from keep.evaluation.evaluate import Table, evaluate
from keep.models.base import Batch
from keep.training import checkpoint
from keep.training.folder import prune
from keep.training.records import RunLog
from keep.training.run import Run
from keep.utils.errors import UserError
from keep.utils.logging import log
from keep.utils.pictures import side_by_side
from keep.utils.signals import Stopped, StopRequest


@torch.no_grad()
def preview(run: Run, batch: Batch) -> np.ndarray:
    """The batch's first clip, side by side: input, output, ground truth. uint8 (T, H, W, 3)."""
    truth = batch["gt"][:1]
    source = batch.get("lq", truth)[:1]
    run.recipe.eval()
    panels = {"input": source, "output": run.recipe.restore(source), "truth": truth}
    run.recipe.train()
    clips = {k: to_uint8(v)[0].cpu().permute(0, 2, 3, 1).numpy() for k, v in panels.items()}
    return np.stack(list(side_by_side(clips)))


@dataclass
class Validation:
    """The validation clips, what is measured on them, and the metric that says which weights are best.

    Attributes:
        data: the clips; None: there is no validation.
        metrics: what is measured.
        chooser: one of them; None where scores choose nothing.
    """

    data: Any
    metrics: Sequence[Any]
    chooser: Any = None

    @classmethod
    def build(cls, config: TrainConfig, data: Any) -> "Validation":
        """From the options, for clips that are built already.

        Raises:
            UserError: ``log.best_metric`` is not measured.
        """
        metrics, name = build(config.val.metrics), config.log.best_metric
        known = {m.name: m for m in metrics}
        if name is not None and name not in known:
            raise UserError(f"log.best_metric: {name!r} is not among val.metrics: {', '.join(known) or 'none'}")
        chooses = data is not None and known and config.log.keep_best
        return cls(data, metrics, known[name or metrics[0].name] if chooses else None)

    @property
    def better(self) -> bool | None:
        """Whether a higher score is a better one; None where scores choose nothing."""
        return None if self.chooser is None else bool(self.chooser.higher_is_better)

    def due(self, run: Run) -> bool:
        """Whether this step is one to validate after."""
        return self.data is not None and run.step > 0 and run.due(run.config.val.interval)


def validate_if_due(run: Run, validation: Validation, records: RunLog, request: StopRequest) -> None:
    """Validate after this step, unless that was done; the state, saved before, is saved again with the score."""
    if not validation.due(run) or run.step in run.scores:
        return
    scores = validate(run, validation, records, request)
    run.scores[run.step] = scores[validation.chooser.name] if validation.chooser else float("nan")
    checkpoint.save_state(run)
    if run.ranks.first:
        prune(run, validation.better)
    run.ranks.barrier()


def validate(run: Run, validation: Validation, records: RunLog, request: StopRequest) -> dict[str, float]:
    """Score the validation clips, shared over the processes, and log which weights were used.

    Without autocast, and with the averaged weights where there are any: the numbers that ``keep.test`` gives (to the
    rounding of TF32, where that is on).

    Returns:
        Name of the metric → mean over all clips, the same in all processes.

    Raises:
        Stopped: a signal came. The state was saved before; a resumed run validates again.
    """

    def restorer(frames: torch.Tensor) -> torch.Tensor:
        if request:
            raise Stopped(f"at step {run.step}, saved before its validation, after {request.name}")
        return run.recipe.restore(frames[None])[0]

    def show(i: int, _name: str, panels: Any) -> None:
        if i == 0:
            frames = {k: v.permute(0, 2, 3, 1).numpy()[:16] for k, v in panels.items()}
            records.clip("val", run.step, np.stack(list(side_by_side(frames))))

    which = "ema" if run.ema is not None else "online"
    mine = range(run.ranks.rank, len(validation.data), run.ranks.world)
    table = None
    run.recipe.eval()
    try:
        with run.ema.applied() if run.ema is not None else nullcontext():
            table = evaluate(
                {which: restorer}, validation.data, validation.metrics, run.device, on_clip=show, title="validation",
                clips=mine,
            )  # fmt: skip
    except Stopped as stopped:
        log.info(str(stopped))
    run.recipe.train()
    tables = run.ranks.gather(table)  # a process that was asked to stop says so to the others
    if any(t is None for t in tables):
        raise Stopped(f"saved at step {run.step}, before its validation, after a signal")
    table = Table.merged(tables)
    scores = {m.name: table.mean(which, m.name) for m in validation.metrics}
    told = {f"val/{name} ({which})": value for name, value in scores.items()}
    records.scalars(run.step, told)
    log.info(f"step {run.step}  " + "  ".join(f"{k} {v:.4f}" for k, v in told.items()))
    return scores
