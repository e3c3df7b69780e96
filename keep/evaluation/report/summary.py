"""The numbers of a run as plain data, from which all tables are made."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from keep.evaluation.evaluate import Table
from keep.evaluation.report.records import plain
from keep.evaluation.statistics import bootstrap, paired
from keep.metrics.base import SetMetric
from keep.utils.errors import UserError

SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
Row = Mapping[str, Any]


def column_of(metric: Any) -> dict[str, Any]:
    """Everything the report needs of a metric, as plain data."""
    power = round(math.log10(metric.factor)) if metric.factor > 0 else 0
    return {
        "name": metric.name,
        "header": metric.name + (f" (×10⁻{str(power).translate(SUPERSCRIPT)})" if power else ""),
        "better": metric.higher_is_better,
        "factor": metric.factor,
        "decimals": metric.decimals,
        "curve": not isinstance(metric, SetMetric) and metric.per_frame,
        "first": getattr(metric, "first", 0),
        "protocol": metric.describe(),
    }


def split_of(
    name: str,
    table: Table,
    clips: Sequence[str],
    restorers: Sequence[str],
    metrics: Sequence[Any],
    level: str | None = None,
    sizes: Sequence[Sequence[int]] = (),
) -> Row:
    """Numbers of one split: means with 95 % intervals over clips, and paired differences of all pairs of restorers.

    A metric of sets without a value becomes a problem of the split.

    Args:
        level: level of the paper's table to quote.
        sizes: sizes of its frames, (height, width).
    """
    problems = []
    rows = []
    for restorer in restorers:
        cells = {}
        for metric in metrics:
            try:
                cells[metric.name] = _cell(table, restorer, metric)
            except UserError as error:
                problems.append(f"{name}: {restorer}: {metric.name}: {error}")
                cells[metric.name] = {"mean": None, "low": None, "high": None, "clips": 0, "missing": 0}
        rows.append({"restorer": restorer, "cells": cells})
    return {
        "name": name,
        "clips": list(clips),
        "rows": rows,
        "pairs": _pairs(table, restorers, metrics),
        "paper": level,
        "sizes": [list(size) for size in sizes],
        "problems": [*problems, *_failures(name, table)],
    }


def _cell(table: Table, restorer: str, metric: Any) -> dict[str, Any]:
    if isinstance(metric, SetMetric):
        scored = sum(s.restorer == restorer and metric.name in s.samples for s in table.scores)
        value = table.pooled(restorer, metric) if scored else math.nan
        return plain({"mean": value, "low": math.nan, "high": math.nan, "clips": scored, "missing": 0})
    values = table.column(restorer, metric.name)
    interval = bootstrap(values)
    missing = sum(s.missing.get(metric.name, 0) for s in table.scores if s.restorer == restorer)
    mean = table.mean(restorer, metric.name)
    return plain({"mean": mean, "low": interval.low, "high": interval.high, "clips": int((values == values).sum()),
                  "missing": missing})  # fmt: skip


def _pairs(table: Table, restorers: Sequence[str], metrics: Sequence[Any]) -> list[dict[str, Any]]:
    """Differences of every later restorer to every earlier one."""
    pairs = []
    for a, b in combinations(restorers, 2):
        for metric in (m for m in metrics if not isinstance(m, SetMetric)):
            d = paired(table.column(b, metric.name), table.column(a, metric.name))
            values = {"mean": d.mean, "low": d.low, "high": d.high, "p": d.p}
            pairs.append({"a": b, "b": a, "metric": metric.name, **plain(values), "clips": int(d.clips)})
    return pairs


def _failures(split: str, table: Table) -> list[str]:
    """One line per failure message, with the clips in which it occurred."""
    found: dict[str, list[str]] = {}
    for clip, failure in table.failures:
        what = ": ".join(x for x in (failure.restorer, failure.metric, failure.message) if x)
        found.setdefault(what, []).append(clip)
    return [
        f"{split}: {clips[0]}{f' and {len(clips) - 1} more clips' if len(clips) > 1 else ''}: {what}"
        for what, clips in found.items()
    ]


def flat_rows(content: Row) -> list[dict[str, Any]]:
    """One row per split and restorer: means as numbers, not multiplied by the metric's factor."""
    return [
        {"split": split["name"], "restorer": row["restorer"], **{k: c["mean"] for k, c in row["cells"].items()}}
        for split in content["splits"]
        for row in split["rows"]
    ]
