"""The numbers of a run as one plain object, and that object as console, CSV, JSON, Markdown and LaTeX tables."""

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from keep.evaluation.evaluate import Table
from keep.evaluation.report import paper
from keep.evaluation.report.records import number, plain
from keep.evaluation.statistics import bootstrap, paired
from keep.metrics.base import SetMetric
from keep.utils.errors import UserError
from keep.utils.visual import console_table, markdown_table

SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
Row = Mapping[str, Any]
NOISE = 0.05
"""A difference is told from noise where its interval leaves zero out and its p is below this: of two or three clips, an
interval alone says too much."""


def column_of(metric: Any) -> dict[str, Any]:
    """What the report must know of a metric, as plain data."""
    return {
        "name": metric.name,
        "header": metric.name + (f" (×10⁻{str(power).translate(SUPERSCRIPT)})" if (power := _power(metric)) else ""),
        "better": metric.higher_is_better,
        "factor": metric.factor,
        "decimals": metric.decimals,
        "curve": not isinstance(metric, SetMetric) and metric.per_frame,
        "first": getattr(metric, "first", 0),
        "protocol": metric.describe(),
    }


def _power(metric: Any) -> int:
    return round(math.log10(metric.factor)) if metric.factor > 0 else 0


def split_of(
    name: str,
    table: Table,
    clips: Sequence[str],
    restorers: Sequence[str],
    metrics: Sequence[Any],
    level: str | None = None,
    sizes: Sequence[Sequence[int]] = (),
) -> Row:
    """One split's numbers: means with 95 % intervals over clips, and paired differences of all pairs of restorers.

    A metric of sets that has no value becomes a problem of the split. ``level``: what is quoted of the paper beside it;
    ``sizes``: the sizes that its frames have, (height, width).
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
    scored = [m for m in metrics if not isinstance(m, SetMetric)]
    pairs = []
    for a, b in combinations(restorers, 2):
        for metric in scored:
            d = paired(table.column(b, metric.name), table.column(a, metric.name))
            values = {"mean": d.mean, "low": d.low, "high": d.high, "p": d.p}
            pairs.append({"a": b, "b": a, "metric": metric.name, **plain(values), "clips": int(d.clips)})
    return {
        "name": name,
        "clips": list(clips),
        "rows": rows,
        "pairs": pairs,
        "paper": level,
        "sizes": [list(size) for size in sizes],
        "problems": [*problems, *_failures(name, table)],
    }


def _cell(table: Table, restorer: str, metric: Any) -> dict[str, Any]:
    if isinstance(metric, SetMetric):
        done = sum(s.restorer == restorer and metric.name in s.samples for s in table.scores)
        value = table.pooled(restorer, metric) if done else math.nan
        return plain({"mean": value, "low": math.nan, "high": math.nan, "clips": done, "missing": 0})
    values = table.column(restorer, metric.name)
    interval = bootstrap(values)
    missing = sum(s.missing.get(metric.name, 0) for s in table.scores if s.restorer == restorer)
    mean = table.mean(restorer, metric.name)
    return plain({"mean": mean, "low": interval.low, "high": interval.high, "clips": int((values == values).sum()),
                  "missing": missing})  # fmt: skip


def _failures(split: str, table: Table) -> list[str]:
    """What failed, each message once, with the clips it befell."""
    found: dict[str, list[str]] = {}
    for clip, failure in table.failures:
        what = ": ".join(x for x in (failure.restorer, failure.metric, failure.message) if x)
        found.setdefault(what, []).append(clip)
    return [
        f"{split}: {clips[0]}{f' and {len(clips) - 1} more clips' if len(clips) > 1 else ''}: {what}"
        for what, clips in found.items()
    ]


# --- tables ---------------------------------------------------------------------------------------------------


def flat_rows(content: Row) -> list[dict[str, Any]]:
    """One row a split and restorer: means, as numbers, not yet times the metric's factor."""
    return [
        {"split": split["name"], "restorer": row["restorer"], **{k: c["mean"] for k, c in row["cells"].items()}}
        for split in content["splits"]
        for row in split["rows"]
    ]


def console(content: Row) -> str:
    """A table a split: means, the best marked; then what is left out and how sure the lead is."""
    parts = []
    columns = {"": None, **{c["header"]: c["better"] for c in content["columns"]}}
    for split in content["splits"]:
        rows = [
            {"": row["restorer"], **{c["header"]: _shown(row["cells"][c["name"]], c) for c in content["columns"]}}
            for row in split["rows"]
        ]
        digits = {c["header"]: c["decimals"] for c in content["columns"]}
        parts.append(f"{split['name']}: {_counted(split)}\n" + console_table(rows, columns, digits))
        parts.append("".join(f"  {line}\n" for line in [*differences(split, content), *left_out(split)]))
    return "\n".join(parts)


def markdown(content: Row) -> str:
    """``table.md``: table A2's form with intervals; differences; the paper's rows, quoted."""
    lines = [f"# {content['name']}\n"]
    columns = {"": None, **{c["header"]: c["better"] for c in content["columns"]}}
    digits = {c["header"]: c["decimals"] for c in content["columns"]}
    for split in content["splits"]:
        lines += [f"## {split['name']}\n", f"{_counted(split)}; * is the best.\n"]
        rows = [
            {"": row["restorer"], **{c["header"]: _shown(row["cells"][c["name"]], c) for c in content["columns"]}}
            for row in split["rows"]
        ]
        lines.append(markdown_table(rows, columns, digits))
        lines.append("95 % intervals of the means, bootstrap over clips:\n")
        rows = [
            {"": row["restorer"], **{c["header"]: _interval(row["cells"][c["name"]], c) for c in content["columns"]}}
            for row in split["rows"]
        ]
        lines.append(markdown_table(rows, list(columns)))
        notes = [*differences(split, content), *left_out(split)]
        lines += ["\n".join(f"- {note}" for note in notes) + "\n"] if notes else []
        if split["paper"]:
            lines += [
                f"### Quoted from the paper: {split['paper']}\n",
                f"{paper.SOURCE}. {paper.note(split['sizes'])}\n",
            ]
            header = {"": None, **{h: None for h in paper_headers()}}
            quoted = [
                {"": f"{name} (quoted)", **dict(zip(paper_headers(), values, strict=True))}
                for name, values in paper.A2[split["paper"]].items()
            ]
            lines.append(markdown_table(quoted, header))
    lines.append("## How it was measured\n")
    lines.append("".join(f"- {c['name']}: {c['protocol']}\n" for c in content["columns"]))
    lines.append("## Restorers, weights and code\n")
    lines.append("".join(f"- {name}: {text}\n" for name, text in content["restorers"].items()))
    lines.append("".join(f"- `{path}`: sha256 {digest}\n" for path, digest in content["files"].items()))
    lines.append("".join(f"- {name}: {text}\n" for name, text in origin_of(content)))
    return "\n".join(lines)


def origin_of(content: Row) -> list[tuple[str, str]]:
    """Device, versions and code, as (name, text)."""
    return [("device", content["device"]), *content["versions"].items(), ("keep's code", f"sha256 {content['code']}")]


def latex(content: Row) -> str:
    """``table.tex``: table A2's form (booktabs), ours and the quoted rows in blocks with headers of their own.

    Best in bold, second best underlined, in each block alone.
    """
    width = max(len(content["columns"]), len(paper.COLUMNS))
    lines = [
        "% needs \\usepackage{booktabs}",
        f"% quoted rows: {paper.SOURCE}.",
        f"% {paper.note([size for split in content['splits'] if split['paper'] for size in split['sizes']])}",
        f"\\begin{{tabular}}{{l{'c' * width}}}",
        "\\toprule",
    ]

    def block(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        lines.append(" & ".join([title, *headers, *[""] * (width - len(headers))]) + r" \\")
        lines.append("\\midrule")
        lines.extend(" & ".join([*row, *[""] * (width + 1 - len(row))]) + r" \\" for row in rows)

    for i, split in enumerate(content["splits"]):
        lines += ["\\midrule"] * (i > 0)
        lines.append(f"\\multicolumn{{{width + 1}}}{{c}}{{{tex(split['name'])}}} \\\\")
        lines.append("\\midrule")
        if split["paper"]:
            quoted = paper.A2[split["paper"]]
            ranked = [
                _ranked([f"{v[j]:.{paper.DECIMALS}f}" for v in quoted.values()], better)
                for j, better in enumerate(paper.HIGHER_IS_BETTER)
            ]
            block("Quoted from the paper", [tex(h) for h in paper_headers()],
                  [[tex(name), *(column[k] for column in ranked)] for k, name in enumerate(quoted)])  # fmt: skip
            lines.append("\\midrule")
        ranked = [
            _ranked([_text(row["cells"][c["name"]]["mean"], c) for row in split["rows"]], c["better"])
            for c in content["columns"]
        ]
        headers = [tex(f"{c['header']} {'↑' if c['better'] else '↓'}") for c in content["columns"]]
        ours = [[tex(row["restorer"]), *(column[k] for column in ranked)] for k, row in enumerate(split["rows"])]
        block("This run", headers, ours)
        apart = [
            [tex(f"{a} − {b}"), *(_difference(split, a, b, c) for c in content["columns"])] for a, b in compared(split)
        ]  # fmt: skip
        if apart:
            lines.append("\\midrule")
            block("Difference ($^*$: told from noise)", headers, apart)
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def frames_csv(content: Row, records: Sequence[Row]) -> str:
    """``frames.csv``: a row a frame, every value in full; empty where there is none."""
    curves = [c["name"] for c in content["columns"] if c["curve"]]
    rows = [["split", "restorer", "clip", "frame", *curves]]
    for record in records:
        for name, own in record["restorers"].items():
            for t in range(record["frames"]):
                values = (own["per_frame"][m][t] for m in curves)
                rows.append([record["split"], name, record["clip"], t, *("" if v is None else v for v in values)])
    return _csv(rows)


def clips_csv(content: Row, records: Sequence[Row]) -> str:
    """``clips.csv``: a row a clip and restorer: its scores, and how many frames had no value."""
    scored = [c["name"] for c in content["columns"]]
    rows = [["split", "restorer", "clip", "frames", *scored, *(f"missing frames: {m}" for m in scored)]]
    for record in records:
        for name, own in record["restorers"].items():
            values = ["" if (v := own["scores"].get(m)) is None else v for m in scored]
            missing = [own["missing"].get(m, 0) for m in scored]
            rows.append([record["split"], name, record["clip"], record["frames"], *values, *missing])
    return _csv(rows)


# --- words ------------------------------------------------------------------------------------------------------


def compared(split: Row) -> list[tuple[str, str]]:
    """Who is put against whom in the tables: each restorer against the first, and the last against each other."""
    names = [row["restorer"] for row in split["rows"]]
    return [(a, b) for b, a in combinations(names, 2) if b == names[0] or a == names[-1]]


def clear(pair: Row) -> bool:
    """Whether a difference can be told from noise."""
    return (number(pair["low"]) > 0 or number(pair["high"]) < 0) and number(pair["p"]) < NOISE


def differences(split: Row, content: Row) -> list[str]:
    """The paired differences of :func:`compared`, and whether they can be told from noise."""
    columns = {c["name"]: c for c in content["columns"]}
    lines = []
    for pair in split["pairs"]:
        if (pair["a"], pair["b"]) not in compared(split) or pair["mean"] is None or pair["low"] is None:
            continue
        c = columns[pair["metric"]]
        ahead = (number(pair["mean"]) > 0) == c["better"]
        verdict = ("better" if ahead else "worse") if clear(pair) else "not told from noise"
        lines.append(
            f"{pair['a']} − {pair['b']}, {c['header']}: {_text(pair['mean'], c, sign=True)} "
            f"[{_text(pair['low'], c, sign=True)}, {_text(pair['high'], c, sign=True)}], "
            f"p {number(pair['p']):.3g}, {pair['clips']} clips: {verdict}"
        )
    return lines


def _difference(split: Row, a: str, b: str, column: Row) -> str:
    """A cell of the LaTeX table."""
    for pair in split["pairs"]:
        if (pair["a"], pair["b"], pair["metric"]) == (a, b, column["name"]) and pair["mean"] is not None:
            mark = "$^*$" if pair["low"] is not None and clear(pair) else ""
            return f"${_text(pair['mean'], column, sign=True)}$" + mark
    return "--"


def left_out(split: Row) -> list[str]:
    """Frames and clips that some metric has no value for, counted: a line a restorer."""
    lines = []
    for row in split["rows"]:
        found: dict[tuple[int, int], list[str]] = {}
        for metric, cell in row["cells"].items():
            lost = len(split["clips"]) - cell["clips"]
            if cell["missing"] or lost:
                found.setdefault((cell["missing"], lost), []).append(metric)
        parts = [_lost(missing, lost, len(split["clips"])) + _of(metrics, len(row["cells"]))
                 for (missing, lost), metrics in found.items()]  # fmt: skip
        if parts:
            lines.append(f"{row['restorer']}: without a value and left out: {'; '.join(parts)}")
    return lines


def _lost(missing: int, lost: int, clips: int) -> str:
    frames = f"{missing} frame{'s' * (missing != 1)}" if missing else ""
    whole = f"{lost} of {clips} clips as a whole" if lost else ""
    return ", ".join(x for x in (frames, whole) if x)


def _of(metrics: Sequence[str], count: int) -> str:
    return " (every metric)" if len(metrics) == count > 1 else f" ({', '.join(metrics)})"


def paper_headers() -> list[str]:
    """Of table A2."""
    return [
        name + (" (×10⁻²)" if factor == 100 else "") + (" ↑" if better else " ↓")
        for name, better, factor in zip(paper.COLUMNS, paper.HIGHER_IS_BETTER, paper.FACTORS, strict=True)
    ]


def tex(text: str) -> str:
    """``text`` for LaTeX."""
    for plain_text, command in (
        ("\\", r"\textbackslash "), ("{", r"\{"), ("}", r"\}"), ("&", r"\&"), ("%", r"\%"), ("#", r"\#"), ("$", r"\$"),
        ("~", r"\textasciitilde "), ("^", r"\textasciicircum "), ("_", r"\_"),
        ("×10⁻²", r"$\times 10^{-2}$"), ("×10⁻³", r"$\times 10^{-3}$"), ("×", r"$\times$"), ("−", "$-$"),
        ("↑", r"$\uparrow$"), ("↓", r"$\downarrow$"), ("–", "--"),
    ):  # fmt: skip
        text = text.replace(plain_text, command)
    return re.sub(r"σ\\_(\w+)", r"$\\sigma_{\\mathrm{\1}}$", text)


def _ranked(cells: Sequence[str], higher_is_better: bool) -> list[str]:
    """Best in bold, second underlined, compared as printed."""
    values = sorted({float(c) for c in cells if c != "–"}, reverse=higher_is_better)
    marks = {v: mark for v, mark in zip(values, (r"\textbf", r"\underline"), strict=False)} if len(cells) > 1 else {}
    return [
        f"{marks[float(c)]}{{{c}}}" if c != "–" and float(c) in marks else c.replace("–", "--") for c in cells
    ]  # fmt: skip


def _shown(cell: Row, column: Row) -> float | None:
    return None if cell["mean"] is None else number(cell["mean"]) * column["factor"]


def _interval(cell: Row, column: Row) -> str | None:
    return None if cell["low"] is None else f"{_text(cell['low'], column)} … {_text(cell['high'], column)}"


def _text(value: Any, column: Row, sign: bool = False) -> str:
    if value is None:
        return "–"
    return f"{number(value) * column['factor']:{'+' if sign else ''}.{column['decimals']}f}"


def _counted(split: Row) -> str:
    return f"{len(split['clips'])} clip{'s' * (len(split['clips']) != 1)}"


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
