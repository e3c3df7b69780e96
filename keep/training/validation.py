"""Validation during training: scores of the validation clips, and previews of a training clip."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from keep.config.registry import build_at
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

DISTORTION = ("PSNR", "SSIM")
"""Metrics that prefer blurred output to the sharp output that an adversarial loss leads to."""


@torch.no_grad()
def preview(run: Run, batch: Batch) -> np.ndarray:
    """The recipe's pictures of the batch's first clip, side by side, such as input, output and ground truth.

    Returns:
        uint8 (T, H, W, 3).
    """
    run.recipe.eval()
    panels = run.recipe.panels(batch)
    run.recipe.train()
    clips = {k: to_uint8(v)[0].cpu().permute(0, 2, 3, 1).numpy() for k, v in panels.items()}
    return np.stack(list(side_by_side(clips)))


@dataclass
class Validation:
    """The validation clips, the metrics, and the metric that chooses the best weights.

    Attributes:
        data: the clips; None: no validation.
        metrics: all metrics to compute.
        chooser: the metric among them that chooses the best weights; None if scores choose nothing.
    """

    data: Any
    metrics: Sequence[Any]
    chooser: Any = None

    @classmethod
    def build(cls, config: TrainConfig, data: Any) -> "Validation":
        """Build it from the options and the validation clips.

        Raises:
            UserError: ``log.best_metric`` is not among ``val.metrics``.
        """
        metrics, name = build_at("val.metrics", config.val.metrics), config.log.best_metric
        known = {m.name: m for m in metrics}
        if name is not None and name not in known:
            raise UserError(f"log.best_metric: {name!r} is not among val.metrics: {', '.join(known) or 'none'}")
        if data is None or not known or not config.log.keep_best:
            return cls(data, metrics)
        chooser = known[name or metrics[0].name]
        if name is None and chooser.name in DISTORTION and config.model.options.get("discriminator") is not None:
            log.warning(
                f"warning: log.best_metric is not set, so {chooser.name} chooses the best weights of a run with a "
                "discriminator, and it prefers blurred output; name a perceptual metric of val.metrics, e.g. LPIPS-vgg"
            )
        return cls(data, metrics, chooser)

    @property
    def higher_is_better(self) -> bool | None:
        """Whether a higher score is better; None if scores choose nothing."""
        return None if self.chooser is None else bool(self.chooser.higher_is_better)

    def due(self, run: Run) -> bool:
        """Whether a validation is due after this step."""
        return self.data is not None and run.step > 0 and run.due(run.config.val.interval)


def validate_if_due(run: Run, validation: Validation, records: RunLog, request: StopRequest) -> None:
    """Validate if due after this step and not done yet; then save the state again, now with the score."""
    if not validation.due(run) or run.step in run.scores:
        return
    scores = validate(run, validation, records, request)
    run.scores[run.step] = scores[validation.chooser.name] if validation.chooser else float("nan")
    checkpoint.save_state(run)
    if run.ranks.first:
        prune(run, validation.higher_is_better)
    run.ranks.barrier()


def validate(run: Run, validation: Validation, records: RunLog, request: StopRequest) -> dict[str, float]:
    """Score the validation clips, shared over the processes, and log the scores and which weights were used.

    It runs without autocast and with the averaged weights, if there are any: the scores are those of ``keep.test``, up
    to the rounding of TF32 if that is on.

    Returns:
        Name of the metric → mean over all clips, the same in all processes.

    Raises:
        Stopped: a signal arrived. The state was saved before; a resumed run validates again.
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
                clips=mine, workers=run.config.data.workers, bar=run.ranks.first,
            )  # fmt: skip
    except Stopped as stopped:
        log.info(str(stopped))
    run.recipe.train()
    tables = run.ranks.gather(table)  # None from a process that received a signal
    if any(t is None for t in tables):
        raise Stopped(f"saved at step {run.step}, before its validation, after a signal")
    table = Table.merged(tables)
    scores = {m.name: table.mean(which, m.name) for m in validation.metrics}
    scalars = {f"val/{name} ({which})": value for name, value in scores.items()}
    records.scalars(run.step, scalars)
    log.info(f"step {run.step}  " + "  ".join(f"{k} {v:.4f}" for k, v in scalars.items()))
    return scores
