"""``keep.test --engine ray``: workers of Ray score the clips; this process plans them and writes the report."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from keep.config import reading
from keep.config.schema import TestConfig
from keep.evaluation.parts import Parts, build_parts, datasets_of, first_frames
from keep.evaluation.report.origin import launch
from keep.evaluation.report.records import Unit, failed_record
from keep.evaluation.score import score_unit
from keep.inference.fast import keep_freed_memory
from keep.utils import cluster
from keep.utils.clock import Clock
from keep.utils.devices import prepare
from keep.utils.io import remove_leftovers
from keep.utils.logging import log
from keep.utils.progress import progress_bar

GRACE = 10.0
"""Seconds that clips have to end after a stop. What is cut off then is scored again by the next run."""
Job = tuple[Unit, list[str]]
"""A clip, and the restorers that run on it."""


@dataclass(frozen=True)
class Workers:
    """What the command line says of the run and its workers. They read the options file again, with its plugins.

    Attributes:
        options: ``-opt``.
        overrides: ``--set``.
        cpus: ``--ray-cpus``.
        gpus: ``--ray-gpus``.
    """

    options: str
    overrides: Sequence[str]
    cpus: int | None
    gpus: float | None

    def placed(self, config: TestConfig, frames: int | None) -> "OnRay":
        """Who scores ``frames`` of each clip (None: all), inside :func:`keep.utils.cluster.connected`."""
        share = cluster.share_of(self.cpus, self.gpus, config.device)
        return OnRay(self, frames, share, share.device(config.device))


@dataclass(frozen=True)
class OnRay:
    """Who scores: workers of Ray.

    Attributes:
        workers: see :class:`Workers`.
        frames: score only so many frames of each clip.
        share: what a worker takes of its machine.
        kind: ``cpu`` or ``cuda``: where the restorers run.
    """

    workers: Workers
    frames: int | None
    share: cluster.Share
    kind: str
    rank: int = 0
    world: int = 1

    @property
    def device(self) -> torch.device:
        """Of what this process builds: it only describes the restorers."""
        return torch.device("cpu")

    def __str__(self) -> str:
        return f"{self.kind} of workers of Ray"

    def score(self, pending: Sequence[Job], config: TestConfig, datasets: Mapping[str, Any], parts: Parts) -> None:
        """Score the clips. One whose worker died again and again gets a record of the failure."""
        unfinished = dict(enumerate(unit for unit, _ in pending))
        make = partial(scorer, self.workers, self.frames, self.share.cpus, self.kind)
        try:
            with closing(cluster.spread(make, pending, self.share, {"KEEP_LAUNCH": launch()}, GRACE)) as results:
                count = len(pending)
                bar = progress_bar(results, desc=config.name, total=count, unit=" clips", delay=2, leave=False)
                for number, result in bar:
                    if isinstance(result, cluster.Died):
                        unit = unfinished[number]
                        log.error(f"error: {unit.split}/{unit.clip}: {result.reason}")
                        unit.write(failed_record(unit, result.reason), {})
                    else:
                        cluster.check_shared(unfinished.pop(number).path("clips", ".json"))
        finally:
            for unit in unfinished.values():  # of workers that were killed
                for kind, suffix in (("clips", ".json"), ("clips", ".npz"), ("seconds", ".json")):
                    remove_leftovers(unit.path(kind, suffix))


def scorer(workers: Workers, frames: int | None, cpus: int, kind: str) -> Callable[[Job], None]:
    """In a worker of Ray: what scores one clip."""
    keep_freed_memory()
    config = reading.load(workers.options, workers.overrides, TestConfig)
    if frames is not None:
        config = first_frames(config, frames)
    device = prepare(kind, config.threads or cpus, config.seed)
    datasets, parts = datasets_of(config), build_parts(config, device)

    def score(job: Job) -> None:
        unit, names = job
        chosen = {name: parts.restorers[name] for name in names}
        score_unit(unit, config, datasets[unit.split], chosen, parts.metrics, Clock(device))

    return score
