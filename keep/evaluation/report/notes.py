"""Numbers as text, and the lines below a table: differences, missing values, versions."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from keep.evaluation.report import paper
from keep.evaluation.report.records import number
from keep.evaluation.report.summary import Row

LEVEL = 0.05
"""A difference is significant if its interval excludes zero and its p is below this: with two or three clips, the
interval alone claims too much."""


def compared(split: Row) -> list[tuple[str, str]]:
    """The pairs in the tables: each restorer against the first, and the last against each other."""
    names = [row["restorer"] for row in split["rows"]]
    return [(a, b) for b, a in combinations(names, 2) if b == names[0] or a == names[-1]]


def is_significant(pair: Row) -> bool:
    return (number(pair["low"]) > 0 or number(pair["high"]) < 0) and number(pair["p"]) < LEVEL


def smallest_p(clips: int) -> float:
    """The smallest p that ``clips`` differences can have: the signs as they are, and all of them reversed."""
    return 2.0 ** (1 - clips)


def too_few(split: Row) -> list[str]:
    """A line where the split has too few clips for any difference to be significant."""
    p, clips = smallest_p(len(split["clips"])), len(split["clips"])
    if clips < 2 or len(split["rows"]) < 2 or p < LEVEL:
        return []
    return [
        f"{clips} clips: no difference can be significant here. With {clips} clips the smallest p by sign changes is "
        f"{p:.3g}, above {LEVEL:g}; six clips are needed."
    ]


def differences(split: Row, content: Row) -> list[str]:
    """One line per pair of :func:`compared` and metric: the paired difference, and whether it is significant."""
    columns = {c["name"]: c for c in content["columns"]}
    lines = []
    for pair in split["pairs"]:
        if (pair["a"], pair["b"]) not in compared(split) or pair["mean"] is None or pair["low"] is None:
            continue
        c = columns[pair["metric"]]
        ahead = (number(pair["mean"]) > 0) == c["better"]
        verdict = ("better" if ahead else "worse") if is_significant(pair) else "not significant"
        lines.append(
            f"{pair['a']} − {pair['b']}, {c['header']}: {format_value(pair['mean'], c, sign=True)} "
            f"[{format_value(pair['low'], c, sign=True)}, {format_value(pair['high'], c, sign=True)}], "
            f"p {number(pair['p']):.3g}, {pair['clips']} clips: {verdict}"
        )
    return lines


def missing_values(split: Row) -> list[str]:
    """One line per restorer with frames or clips that have no value of some metric, counted."""
    lines = []
    total = len(split["clips"])
    for row in split["rows"]:
        found: dict[tuple[int, int], list[str]] = {}
        for metric, cell in row["cells"].items():
            clips = total - cell["clips"]
            if cell["missing"] or clips:
                found.setdefault((cell["missing"], clips), []).append(metric)
        parts = [
            f"{_count(frames, clips, total)} {_names(metrics, len(row['cells']))}"
            for (frames, clips), metrics in found.items()
        ]
        if parts:
            lines.append(f"{row['restorer']}: without a value, excluded from the means: {'; '.join(parts)}")
    return lines


def _count(frames: int, clips: int, total: int) -> str:
    parts = [f"{frames} frame{'s' * (frames != 1)}"] * (frames > 0) + [f"{clips} of {total} clips"] * (clips > 0)
    return ", ".join(parts)


def _names(metrics: Sequence[str], count: int) -> str:
    return "(every metric)" if len(metrics) == count > 1 else f"({', '.join(metrics)})"


def origin_of(content: Row) -> list[tuple[str, str]]:
    """Device, versions and code, as (name, text)."""
    return [("device", content["device"]), *content["versions"].items(), ("keep's code", f"sha256 {content['code']}")]


def paper_headers() -> list[str]:
    """Column headers of table A2."""
    return [
        name + (" (×10⁻²)" if factor == 100 else "") + (" ↑" if better else " ↓")
        for name, better, factor in zip(paper.COLUMNS, paper.HIGHER_IS_BETTER, paper.FACTORS, strict=True)
    ]


def clip_count(split: Row) -> str:
    return f"{len(split['clips'])} clip{'s' * (len(split['clips']) != 1)}"


def scaled_mean(cell: Row, column: Row) -> float | None:
    """Mean times the metric's factor."""
    return None if cell["mean"] is None else number(cell["mean"]) * column["factor"]


def format_value(value: Any, column: Row, sign: bool = False) -> str:
    """A score as tables show it: times the metric's factor, rounded to its decimals."""
    if value is None:
        return "–"
    return f"{number(value) * column['factor']:{'+' if sign else ''}.{column['decimals']}f}"


def format_interval(cell: Row, column: Row) -> str | None:
    if cell["low"] is None:
        return None
    return f"{format_value(cell['low'], column)} … {format_value(cell['high'], column)}"
