"""The benchmark behind ``keep.test``: restorers and metrics on splits of clips, resumable, shared by ranks.

Each clip is one :class:`Unit` with a record on disk. A unit whose record is complete is skipped; ranks never
communicate: each scores its own units, and the last one to finish finds every record and writes the report.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from keep.config.reading import to_yaml
from keep.config.registry import dump
from keep.config.schema import TestConfig
from keep.evaluation.evaluate import check_names
from keep.evaluation.on_ray import Job, OnRay, Workers
from keep.evaluation.parts import Parts, build_parts, datasets_of, first_frames
from keep.evaluation.report.costs import write_costs
from keep.evaluation.report.origin import code, file_hashes, versions
from keep.evaluation.report.records import Unit, key_of, pending_restorers, settled
from keep.evaluation.report.sources import clips_of
from keep.evaluation.report.write import write_report
from keep.evaluation.score import score_unit, wanted_media
from keep.utils import cluster
from keep.utils.clock import Clock
from keep.utils.devices import prepare
from keep.utils.errors import UserError
from keep.utils.io import write_file
from keep.utils.launch import launched_ranks
from keep.utils.lock import dead_parts, lock
from keep.utils.logging import log
from keep.utils.progress import progress_bar


@dataclass(frozen=True)
class Here:
    """Who scores: this process, one rank of one or several.

    Attributes:
        device: where the restorers run.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def kind(self) -> str:
        return self.device.type

    def __str__(self) -> str:
        return str(self.device)

    def score(self, pending: Sequence[Job], config: TestConfig, datasets: Mapping[str, Any], parts: Parts) -> None:
        bar = progress_bar(pending, desc=config.name, unit=" clips", delay=2, leave=False, disable=self.rank != 0)
        for unit, names in bar:
            chosen = {name: parts.restorers[name] for name in names}
            score_unit(unit, config, datasets[unit.split], chosen, parts.metrics, Clock(self.device))


def run_benchmark(
    config: TestConfig, num: int | None = None, frames: int | None = None, workers: Workers | None = None
) -> int:
    """Score every pending clip of this rank, then write the report if all ranks are done.

    Args:
        config: the options.
        num: score only the first clips of each split, with results in ``root/name_num``; None scores all.
        frames: score only the first so many frames of each clip, with results in ``root/name_numxframes``.
        workers: workers of Ray that score all clips; None: this process.

    Returns:
        Exit status of ``keep.test``: 0, or 1 if something failed.
    """
    rank, world, local = launched_ranks()
    check_names(config.restorers)
    if unknown := config.paper.keys() - config.data.keys():
        raise UserError(f"paper: {', '.join(unknown)}: no such split in data; its splits are {', '.join(config.data)}")
    if unknown := config.trained.keys() - config.restorers.keys():
        raise UserError(f"trained: {', '.join(unknown)}: no such row; the rows are {', '.join(config.restorers)}")
    if frames is not None:
        config = first_frames(config, frames)
    shortened = "x".join(str(n) for n in (num, frames) if n is not None)
    folder = config.root / f"{config.name}{'_' * bool(shortened)}{shortened}"
    group = key_of(to_yaml(config), world) if world > 1 else ""
    with lock(folder, f"rank{rank}" if world > 1 else "", group):
        if workers is None:
            here = Here(rank, world, prepare(config.device, config.threads, config.seed, local))
            return _run(config, folder, num, here)
        with cluster.connected():
            return _run(config, folder, num, workers.placed(config, frames))


def _run(config: TestConfig, folder: Path, num: int | None, scorer: Here | OnRay) -> int:
    """Score this rank's clips in ``folder``, which it holds."""
    started = time.time()
    rank, world = scorer.rank, scorer.world
    datasets = datasets_of(config)
    parts = build_parts(config, scorer.device)
    check_truth(datasets, parts.metrics)
    about = {"versions": versions(), "code": code(), "device": scorer.kind}
    units = plan(config, folder, datasets, [about, file_hashes(config.plugins)], parts.restorer_keys, num)

    mine = units[rank::world]
    pending = [(unit, names) for unit in mine if (names := _pending(unit, config, parts))]
    log.info(
        f"{config.name}: {len(units)} clips, {', '.join(parts.restorers)}, on {scorer}"
        + (f"; {len(mine) - len(pending)} already scored" if len(pending) < len(mine) else "")
        + (f"; rank {rank} of {world} scores {len(pending)}" if world > 1 else "")
    )
    scorer.score(pending, config, datasets, parts)

    records = [(unit, unit.read()) for unit in units]
    missing = sum(not settled(r, wanted_media(u, config), list(parts.restorer_keys)) for u, r in records)
    if missing:
        return _incomplete(folder, rank, missing, started)
    return _report(config, folder, about, parts, [(u, r) for u, r in records if r], len(units) - len(pending))


def _incomplete(folder: Path, rank: int, missing: int, started: float) -> int:
    """Say who still scores the missing clips, or that a rank was killed since ``started``; return the exit status."""
    dead = [f"{part} ({process})" for part, process in dead_parts(folder, started).items()]
    if not dead:
        log.info(f"rank {rank} is done; other ranks still score {missing} clips, and the last one writes the report")
        return 0
    log.error(
        f"error: {', '.join(dead)} was killed, most often because memory ran out; {missing} clips have no score yet: "
        "start the same command again, it scores them and writes the report"
    )
    return 1


def _pending(unit: Unit, config: TestConfig, parts: Parts) -> list[str]:
    return pending_restorers(unit.read(), wanted_media(unit, config), list(parts.restorer_keys))


def _report(
    config: TestConfig,
    folder: Path,
    about: Mapping[str, Any],
    parts: Parts,
    records: Sequence[tuple[Unit, Mapping[str, Any]]],
    reused: int,
) -> int:
    """Write options, tables, page and costs; return the exit status."""
    about = {**about, "files": dict(sorted(parts.hashes.items()))}
    write_file(folder / "options.yml", to_yaml(config))
    content = write_report(folder, config, about, parts.restorers, parts.metrics, records, parts.problems)
    write_costs(folder, [unit for unit, _ in records], reused)
    for line in content["problems"]:
        log.warning(f"warning: {line}")
    log.info(f"written to {folder}: report.html, table.md, table.tex, frames.csv, clips.csv, results.json")
    return 1 if content["problems"] else 0


def check_truth(datasets: Mapping[str, Any], metrics: Sequence[Any]) -> None:
    """Raise UserError if a metric compares with a ground truth that a split lacks."""
    for split, dataset in datasets.items():
        needing = [m.name for m in metrics if getattr(m, "needs_truth", True)]
        if needing and not getattr(dataset, "has_truth", True):
            raise UserError(
                f"metrics: {', '.join(needing)} compare with a ground truth, and the clips of {split} have none; "
                "without one: NIQE, PyIQA, VIDD, WarpingError"
            )


def plan(
    config: TestConfig,
    folder: Path,
    datasets: Mapping[str, Any],
    about: Any,
    keys: Mapping[str, str],
    num: int | None,
) -> list[Unit]:
    """The first ``num`` clips (None: all) of every split, with the keys their records must have to be reused.

    Args:
        about: what all numbers depend on: versions, code, device, plugins.
        keys: those of the restorers.
    """
    units = []
    for split, dataset in datasets.items():
        clips = clips_of(dataset, config.seed, config.by_content, num)
        for number, (clip, state) in enumerate(clips):
            key = key_of(about, config.seed, dump(config.data[split]), split, clip, number, state)
            units.append(Unit(split, number, clip, key, folder, keys))
    return units
