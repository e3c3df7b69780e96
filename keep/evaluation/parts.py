"""What a benchmark is made of: data sets, restorers and metrics, built from the options."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch

from keep.config.registry import Spec, build_at, dump
from keep.config.schema import TestConfig
from keep.data.base import ClipDataset
from keep.evaluation.report.origin import file_hashes, files_of
from keep.evaluation.report.records import key_of
from keep.evaluation.report.write import describe
from keep.metrics.base import build_metrics
from keep.metrics.faces import default_detector
from keep.utils.errors import UserError
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


def datasets_of(config: TestConfig) -> dict[str, Any]:
    """Split → its data set."""
    return {split: keep_damaged(spec).build() for split, spec in config.data.items()}


def keep_damaged(spec: Spec) -> Spec:
    """``spec`` with ``on_bad: keep`` in all datasets of whole clips: a damaged clip fails alone, the run continues."""
    options = {k: keep_damaged(v) if isinstance(v, Spec) else v for k, v in spec.options.items()}
    if issubclass(spec.cls, ClipDataset) and "on_bad" in options and options.get("clip_length") is None:
        options["on_bad"] = "keep"
    return replace(spec, options=options)


def first_frames(config: TestConfig, frames: int) -> TestConfig:
    """``config`` with at most ``frames`` frames of each clip."""
    return config.model_copy(update={"data": {k: _first_frames(v, frames) for k, v in config.data.items()}})


def _first_frames(spec: Spec, frames: int) -> Spec:
    """``spec`` with at most ``frames`` as ``max_frames`` in all datasets that have this option."""
    options: dict[str, Any] = {
        k: _first_frames(v, frames) if isinstance(v, Spec) else v for k, v in spec.options.items()
    }
    if issubclass(spec.cls, ClipDataset) and "max_frames" in options:
        options["max_frames"] = min(frames, options["max_frames"] or frames)
    return replace(spec, options=options)


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
