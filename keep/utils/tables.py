"""Tables of text: Markdown, and columns for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def markdown_table(
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, bool | None] | Sequence[str],
    digits: int | Mapping[str, int] = 4,
) -> str:
    """``rows`` as a Markdown table; the best value of each ranked column is marked with ``*``.

    Args:
        rows: one mapping a row, column name → text or number; an absent, None or NaN value shows as ``–``.
        columns: column name → whether larger is better (None: not ranked), or names only.
        digits: decimals of floats, for all columns or for each (default 4).
    """
    header, body, ranked = _cells(rows, columns, digits)
    lines = [header, ["--:" if r else ":--" for r in ranked], *body]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def console_table(
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, bool | None] | Sequence[str],
    digits: int | Mapping[str, int] = 4,
) -> str:
    """The table of :func:`markdown_table`, aligned for a terminal."""
    header, body, ranked = _cells(rows, columns, digits)
    # Numbers align on the right; the mark stands outside the column.
    table = [
        [c if c.endswith("*") or not r else c + " " for c, r in zip(line, ranked, strict=True)]
        for line in [header, *body]
    ]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, ranked, strict=True)).rstrip()
        for line in table
    ]
    lines.insert(1, "  ".join("─" * w for w in widths))
    return "\n".join(lines) + "\n"


def _cells(
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, bool | None] | Sequence[str],
    digits: int | Mapping[str, int],
) -> tuple[list[str], list[list[str]], list[bool]]:
    """Header, body and, for each column, whether it is a column of numbers."""
    directions = dict(columns) if isinstance(columns, Mapping) else dict.fromkeys(columns)
    header = [name + {True: " ↑", False: " ↓", None: ""}[better] for name, better in directions.items()]
    places = {name: digits if isinstance(digits, int) else digits.get(name, 4) for name in directions}
    body = [[_cell(row.get(name), places[name]) for name in directions] for row in rows]
    for j, (name, better) in enumerate(directions.items()):
        values = [row.get(name) for row in rows]
        numbers: list[Any] = [v for v in values if _is_number(v)]
        if better is not None and len(numbers) > 1:
            best = _cell(max(numbers) if better else min(numbers), places[name])
            for line in body:  # compared as printed: equal digits are a tie
                line[j] += "*" if line[j] == best else ""
    numeric = [
        better is not None or any(_is_number(row.get(name)) for row in rows) for name, better in directions.items()
    ]
    return header, body, numeric


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and not np.isnan(value)


def _cell(value: Any, digits: int) -> str:
    if isinstance(value, float | np.floating):
        return "–" if np.isnan(value) else f"{value:.{digits}f}"
    return "–" if value is None else str(value)
