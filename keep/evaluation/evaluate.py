"""The one evaluator, used by validation during training and by ``keep.test``.

A restorer is anything callable on one clip: LQ frames (T, 3, h, w) in [-1, 1] → frames (T, 3, H, W) in [-1, 1].
Scores are taken on frames rounded to uint8, averaged over the frames of a clip, then over clips.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from keep.data.frames import to_float, to_uint8
from keep.data.sampler import clip_loader
from keep.metrics.base import Clip, SetMetric
from keep.utils.clock import Clock
from keep.utils.errors import UserError
from keep.utils.progress import progress_bar

Restorer = Callable[[torch.Tensor], torch.Tensor]
OnClip = Callable[[int, str, Mapping[str, torch.Tensor]], None]


@dataclass(frozen=True)
class Failure:
    """What failed, and why, in one line.

    Attributes:
        restorer: empty if the clip itself cannot be read.
        metric: None if the restorer itself failed, so that no metric has a value.
        lasting: the clip itself is the reason (it has no face): a retry cannot help.
    """

    restorer: str
    metric: str | None
    message: str
    lasting: bool = False


@dataclass
class ClipScore:
    """Scores of one restorer on one clip.

    Attributes:
        index: number of the clip in its dataset.
        frames: T.
        per_frame: metric name → (T,) values; NaN for a frame without a value.
        scores: metric name → score of the clip; NaN if no frame has a value.
        missing: metric name → number of frames that should have a value but have none (no face).
        samples: name of a metric of sets → its samples of (output, truth).
        seconds: time of the restorer alone.
        degradation: JSON of the parameters drawn for the clip.
    """

    clip: str
    restorer: str
    index: int
    frames: int
    per_frame: dict[str, np.ndarray]
    scores: dict[str, float]
    missing: dict[str, int]
    samples: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    seconds: float = 0.0
    degradation: str = ""


@dataclass
class Table:
    """Scores of all restorers on all clips, in the order of the dataset."""

    scores: list[ClipScore] = field(default_factory=list)
    failures: list[tuple[str, Failure]] = field(default_factory=list)
    """(clip name, failure)"""

    @staticmethod
    def merged(tables: Sequence["Table"]) -> "Table":
        """Merge tables of different clips of one dataset, such as those of the ranks."""
        # The sort is stable: it keeps the order of the restorers.
        scores = sorted((s for t in tables for s in t.scores), key=lambda s: s.index)
        return Table(scores, [f for t in tables for f in t.failures])

    def restorers(self) -> list[str]:
        return list(dict.fromkeys(s.restorer for s in self.scores))

    def column(self, restorer: str, metric: str) -> np.ndarray:
        """Scores (clips,) in the order of the clips; NaN for a clip without a score."""
        known = {s.index: s.scores.get(metric, math.nan) for s in self.scores if s.restorer == restorer}
        return np.array([known.get(i, math.nan) for i in sorted({s.index for s in self.scores})], dtype=np.float64)

    def mean(self, restorer: str, metric: str) -> float:
        """Mean over the clips that have a score; NaN if none has."""
        values = self.column(restorer, metric)
        values = values[~np.isnan(values)]
        return float(np.mean(values)) if len(values) else math.nan

    def pooled(self, restorer: str, metric: SetMetric) -> float:
        """The value of a metric of sets over all clips that the restorer processed."""
        pairs = [
            s.samples[metric.name] for s in self.scores if s.restorer == restorer and metric.name in s.samples
        ]  # fmt: skip
        return metric.value([output for output, _ in pairs], [truth for _, truth in pairs])


@dataclass
class ClipResult:
    """All restorers on one clip.

    Attributes:
        panels: uint8 (T, 3, H, W): ``input`` (at its own size), the output of each restorer that succeeded, ``truth``.
        gains: restorer → its Kalman gains (T, h, w), if it has any.
        errors: restorer → low end, middle and high end of the error that it expects (3, T, H/8, W/8), in grey levels,
            if it has an error model.
    """

    index: int
    name: str
    scores: list[ClipScore]
    failures: list[Failure]
    panels: dict[str, torch.Tensor]
    gains: dict[str, np.ndarray]
    errors: dict[str, np.ndarray] = field(default_factory=dict)


@torch.no_grad()
def score_clip(
    sample: Mapping[str, Any],
    index: int,
    restorers: Mapping[str, Restorer],
    metrics: Sequence[Any],
    clock: Clock,
    on_failure: Callable[[Failure, Exception], None] | None = None,
) -> ClipResult:
    """Restore one clip with every restorer and score the results; faces and flow of the truth are computed once.

    Args:
        sample: of a dataset (:mod:`keep.data.base`); without ``lq``, its ground truth is the input.
        index: number of the clip.
        restorers: name → restorer.
        metrics: see :mod:`keep.metrics`.
        clock: its device runs the restorers; it adds up the times ``restore NAME`` and ``metric NAME``.
        on_failure: called for each failure, then the rest continues; None raises it.
    """
    truth = sample["gt"]
    source = sample.get("lq", truth)
    result = ClipResult(index, sample["name"], [], [], {"input": source}, {})

    @contextmanager
    def guarded(restorer: str, metric: str | None = None) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if on_failure is None:
                raise
            failure = Failure(
                restorer, metric, one_line(error), lasting=metric is not None and isinstance(error, UserError)
            )
            result.failures.append(failure)
            on_failure(failure, error)

    target = Clip(truth.to(clock.device), "ground truth")
    for name, restorer in restorers.items():
        output = None
        with guarded(name):
            output = restore(restorer, name, source, truth, clock)
        if output is None:
            continue
        score = ClipScore(sample["name"], name, index, len(truth), {}, {}, {})
        score.seconds, score.degradation = clock.seconds[f"restore {name}"], sample.get("degradation", "")
        clip = Clip(output, f"output of {name}")
        for metric in metrics:
            values = np.full(len(truth), np.nan)  # a failed metric keeps its column, without values
            with guarded(name, metric.name), clock(f"metric {metric.name}"):
                if isinstance(metric, SetMetric):
                    score.samples[metric.name] = (metric.samples(clip), metric.samples(target))
                else:
                    values = metric(clip, target)
            if not isinstance(metric, SetMetric):
                score.per_frame[metric.name] = values
                score.scores[metric.name] = metric.score(values)
                score.missing[metric.name] = metric.missing(values)
        result.scores.append(score)
        result.panels[name] = output.cpu()
        gains = getattr(restorer, "gains", None)
        if gains is not None:
            result.gains[name] = torch.as_tensor(gains).float().cpu().numpy()
        errors = getattr(restorer, "errors", None)
        if errors is not None:
            result.errors[name] = torch.as_tensor(errors).float().cpu().numpy()
    result.panels["truth"] = truth
    return result


def restore(
    restorer: Restorer, name: str, source: torch.Tensor, truth: torch.Tensor, clock: Clock
) -> torch.Tensor:  # fmt: skip
    """Output of the restorer for ``source``, uint8 on the clock's device; its shape must be that of ``truth``."""
    frames = to_float(source.to(clock.device))
    with clock(f"restore {name}", memory=True):
        output = to_uint8(restorer(frames))
    if output.shape != truth.shape:
        raise UserError(
            f"returned {_shape(output)} for an input of {_shape(source)}, but the ground truth is {_shape(truth)}"
        )
    return output


def evaluate(
    restorers: Mapping[str, Restorer],
    dataset: Any,
    metrics: Sequence[Any],
    device: torch.device,
    seed: int = 0,
    on_clip: OnClip | None = None,
    title: str = "test",
    *,
    clips: Sequence[int] | None = None,
    workers: int = 0,
    bar: bool = True,
) -> Table:
    """Restore and score clips of ``dataset`` with every restorer.

    Args:
        restorers: row name → restorer.
        dataset: see :mod:`keep.data.base`; clip i is ``dataset[seed, i]``.
        metrics: see :mod:`keep.metrics`.
        device: where the restorers run.
        seed: of the degradations.
        on_clip: called with (index, clip name, panels) for each clip; see :class:`ClipResult` for the panels.
        title: of the progress bar.
        clips: numbers of the clips to score; None scores all. Ranks share a dataset with
            ``range(rank, len(dataset), world)`` and :meth:`Table.merged`.
        workers: processes that read and degrade the clips; 0: this one. The scores are the same.
        bar: whether to show the progress bar.

    Raises:
        UserError: the first failure, with the name of the clip.
    """
    check_names(restorers)
    table = Table()
    numbers = range(len(dataset)) if clips is None else clips
    progress = progress_bar(numbers, desc=title, unit=" clips", leave=False, delay=2, disable=not bar)
    with closing(iter(clip_loader(dataset, seed, numbers, workers))) as samples:  # closed, it ends its workers
        for i, sample in zip(progress, samples, strict=True):
            try:
                result = score_clip(sample, i, restorers, metrics, Clock(device))
            except UserError as error:
                raise UserError(f"clip {sample['name']}: {error}") from error
            table.scores += result.scores
            if on_clip is not None:
                on_clip(i, result.name, result.panels)
    return table


def check_names(restorers: Mapping[str, Any]) -> None:
    """Raise UserError if a restorer has the name of another panel."""
    if taken := {"input", "truth"} & restorers.keys():
        raise UserError(f"restorers: {', '.join(taken)} is the name of a panel; choose another name")


def one_line(error: Exception) -> str:
    """The error in one line."""
    message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return " ".join(message.split())


def _shape(frames: torch.Tensor) -> str:
    if frames.ndim != 4:
        return f"an array {tuple(frames.shape)}"
    return f"{len(frames)} frames of {frames.shape[-1]}×{frames.shape[-2]}"
