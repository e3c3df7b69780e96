"""The benchmark behind ``keep.test``: restorers and metrics on splits of clips, resumable, shared by ranks.

Each clip is one :class:`Unit` with a record on disk. A unit whose record is complete is skipped; ranks never
communicate: each scores its own units, and the last one to finish finds every record and writes the report.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from keep.config.reading import to_yaml
from keep.config.registry import Spec, build_at, dump
from keep.config.schema import TestConfig
from keep.data.base import ClipDataset
from keep.evaluation.evaluate import check_names
from keep.evaluation.report.costs import write_costs
from keep.evaluation.report.origin import code, file_hashes, files_of, versions
from keep.evaluation.report.records import Unit, key_of, pending_restorers, settled
from keep.evaluation.report.sources import clips_of
from keep.evaluation.report.write import describe, write_report
from keep.evaluation.score import score_unit, wanted_media
from keep.metrics.base import build_metrics
from keep.metrics.faces import default_detector
from keep.utils.clock import Clock
from keep.utils.devices import prepare
from keep.utils.errors import UserError
from keep.utils.io import write_file
from keep.utils.launch import launched_ranks
from keep.utils.lock import dead_parts, lock
from keep.utils.logging import log

T = TypeVar("T")


@dataclass
class Parts:
    """The built restorers and metrics of a run.

    Attributes:
        restorers: name → restorer, on the device.
        metrics: see :mod:`keep.metrics`.
        restorer_keys: restorer → hash of everything its scores depend on, apart from the clip.
        hashes: weight file → sha256.
        problems: one line for each restorer or metric that cannot be built and is skipped.
    """

    restorers: dict[str, Any]
    metrics: list[Any]
    restorer_keys: dict[str, str]
    hashes: dict[str, str]
    problems: list[str]


def run_benchmark(config: TestConfig, num: int | None = None, frames: int | None = None) -> int:
    """Score every pending clip of this rank, then write the report if all ranks are done.

    Args:
        config: the options.
        num: score only the first clips of each split, with results in ``root/name_num``; None scores all.
        frames: score only the first so many frames of each clip, with results in ``root/name_numxframes``.

    Returns:
        Exit status of ``keep.test``: 0, or 1 if something failed.
    """
    rank, world, local = launched_ranks()
    device = prepare(config.device, config.threads, config.seed, local)
    check_names(config.restorers)
    if unknown := config.paper.keys() - config.data.keys():
        raise UserError(f"paper: {', '.join(unknown)}: no such split in data; its splits are {', '.join(config.data)}")
    if unknown := config.trained.keys() - config.restorers.keys():
        raise UserError(f"trained: {', '.join(unknown)}: no such row; the rows are {', '.join(config.restorers)}")
    if frames is not None:
        config = config.model_copy(update={"data": {k: first_frames(v, frames) for k, v in config.data.items()}})
    shortened = "x".join(str(n) for n in (num, frames) if n is not None)
    folder = config.root / f"{config.name}{'_' * bool(shortened)}{shortened}"
    group = key_of(to_yaml(config), world) if world > 1 else ""
    with lock(folder, f"rank{rank}" if world > 1 else "", group):
        return _run(config, folder, num, rank, world, device)


def _run(config: TestConfig, folder: Path, num: int | None, rank: int, world: int, device: torch.device) -> int:
    """Score this rank's clips in ``folder``, which it holds."""
    started = time.time()
    datasets = {split: keep_damaged(spec).build() for split, spec in config.data.items()}
    parts = build_parts(config, device)
    check_truth(datasets, parts.metrics)
    about = {"versions": versions(), "code": code(), "device": device.type}
    units = plan(config, folder, datasets, [about, file_hashes(config.plugins)], parts.restorer_keys, num)

    mine = units[rank::world]
    pending = [(unit, names) for unit in mine if (names := _pending(unit, config, parts))]
    log.info(
        f"{config.name}: {len(units)} clips, {', '.join(parts.restorers)}, on {device}"
        + (f"; {len(mine) - len(pending)} already scored" if len(pending) < len(mine) else "")
        + (f"; rank {rank} of {world} scores {len(pending)}" if world > 1 else "")
    )
    bar = tqdm(pending, desc=config.name, unit="clip", delay=2, leave=False, disable=None if rank == 0 else True)
    for unit, names in bar:
        chosen = {name: parts.restorers[name] for name in names}
        score_unit(unit, config, datasets[unit.split], chosen, parts.metrics, Clock(device))

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


# --- restorers and metrics --------------------------------------------------------------------------------------


def build_parts(config: TestConfig, device: torch.device) -> Parts:
    """Build metrics and restorers; those that cannot be built are skipped with an error line.

    Raises:
        UserError: no restorer can be built.
    """
    problems: list[str] = []
    default_detector.cache_clear()  # its file may differ from that of an earlier run in this process
    metrics = _build_metrics(config, problems)
    metric_files = file_hashes(config.metrics, files_of(metrics))
    measured = [dump(config.metrics), [[m.name, m.describe()] for m in metrics], metric_files]
    hashes = {**file_hashes(config.plugins), **metric_files}
    restorers, keys = {}, {}
    for name, spec in config.restorers.items():
        restorer = _attempt(f"restorer {name}", partial(build_at, f"restorers.{name}", spec), problems)
        if restorer is not None:
            files = file_hashes(spec, files_of(restorer))
            restorers[name], keys[name] = restorer.to(device), key_of(dump(spec), describe(restorer), files, measured)
            hashes |= files
    for line in problems:
        log.error(f"error: {line}; skipped")
    if not restorers:
        raise UserError("no restorer can be built: " + "; ".join(problems))
    return Parts(restorers, metrics, keys, hashes, problems)


def _build_metrics(config: TestConfig, problems: list[str]) -> list[Any]:
    """All metrics except those whose network or file is missing."""
    try:
        return build_metrics(config.metrics)
    except UserError:  # find out which one
        tried = [
            _attempt(f"metric {s.type}", partial(build_at, f"metrics.{i}", s), problems)
            for i, s in enumerate(config.metrics)
        ]
        good = [s for s, metric in zip(config.metrics, tried, strict=True) if metric is not None]
        return build_metrics(good)


def _attempt(where: str, make: Callable[[], T], problems: list[str]) -> T | None:
    """``make()``; after a UserError None, with a line added to ``problems``."""
    try:
        return make()
    except UserError as error:
        problems.append(f"{where}: {error}")
        return None


def check_truth(datasets: Mapping[str, Any], metrics: Sequence[Any]) -> None:
    """Raise UserError if a metric compares with a ground truth that a split lacks."""
    for split, dataset in datasets.items():
        needing = [m.name for m in metrics if getattr(m, "needs_truth", True)]
        if needing and not getattr(dataset, "has_truth", True):
            raise UserError(
                f"metrics: {', '.join(needing)} compare with a ground truth, and the clips of {split} have none; "
                "without one: NIQE, PyIQA, VIDD, WarpingError"
            )


# --- clips ------------------------------------------------------------------------------------------------------


def keep_damaged(spec: Spec) -> Spec:
    """``spec`` with ``on_bad: keep`` in all datasets of whole clips: a damaged clip fails alone, the run continues."""
    options = {k: keep_damaged(v) if isinstance(v, Spec) else v for k, v in spec.options.items()}
    if issubclass(spec.cls, ClipDataset) and "on_bad" in options and options.get("clip_length") is None:
        options["on_bad"] = "keep"
    return replace(spec, options=options)


def first_frames(spec: Spec, frames: int) -> Spec:
    """``spec`` with at most ``frames`` as ``max_frames`` in all datasets that have this option."""
    options: dict[str, Any] = {
        k: first_frames(v, frames) if isinstance(v, Spec) else v for k, v in spec.options.items()
    }
    if issubclass(spec.cls, ClipDataset) and "max_frames" in options:
        options["max_frames"] = min(frames, options["max_frames"] or frames)
    return replace(spec, options=options)


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
