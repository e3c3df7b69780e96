"""The numbers of a run as console, Markdown and CSV tables."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from keep.evaluation.report import paper
from keep.evaluation.report.notes import (
    clip_count,
    differences,
    format_interval,
    missing_values,
    origin_of,
    paper_headers,
    scaled_mean,
    too_few,
)  # fmt: skip
from keep.evaluation.report.summary import Row
from keep.utils.tables import console_table, markdown_table


def console(content: Row) -> str:
    """One table per split: means, the best marked; then differences and missing values."""
    parts = []
    columns, digits = _columns(content)
    for split in content["splits"]:
        table = console_table(_means(split, content), columns, digits)
        parts.append(f"{split['name']}: {clip_count(split)}\n" + table)
        notes = [*too_few(split), *differences(split, content), *missing_values(split)]
        parts.append("".join(f"  {line}\n" for line in notes))
    return "\n".join(parts)


def markdown(content: Row) -> str:
    """``table.md``: the form of table A2 with intervals; differences; the quoted rows of the paper."""
    lines = [f"# {content['name']}\n"]
    columns, digits = _columns(content)
    for split in content["splits"]:
        lines += [f"## {split['name']}\n", f"{clip_count(split)}; * is the best.\n"]
        lines.append(markdown_table(_means(split, content), columns, digits))
        lines.append("95 % intervals of the means, bootstrap over clips:\n")
        intervals = [
            {"": r["restorer"], **{c["header"]: format_interval(r["cells"][c["name"]], c) for c in content["columns"]}}
            for r in split["rows"]
        ]
        lines.append(markdown_table(intervals, list(columns)))
        notes = [*too_few(split), *differences(split, content), *missing_values(split)]
        lines += ["\n".join(f"- {note}" for note in notes) + "\n"] if notes else []
        if split["paper"]:
            lines += _quoted(split)
    lines.append("## Metrics\n")
    lines.append("".join(f"- {c['name']}: {c['protocol']}\n" for c in content["columns"]))
    lines.append("## Restorers, weights and code\n")
    lines.append("".join(f"- {name}: {text}\n" for name, text in content["restorers"].items()))
    lines.append("".join(f"- `{path}`: sha256 {digest}\n" for path, digest in content["files"].items()))
    lines.append("".join(f"- {name}: {text}\n" for name, text in origin_of(content)))
    return "\n".join(lines)


def _columns(content: Row) -> tuple[dict[str, bool | None], dict[str, int]]:
    """Header → whether higher is better, and header → number of decimals."""
    columns: dict[str, bool | None] = {"": None, **{c["header"]: c["better"] for c in content["columns"]}}
    return columns, {c["header"]: c["decimals"] for c in content["columns"]}


def _means(split: Row, content: Row) -> list[dict[str, Any]]:
    return [
        {"": row["restorer"], **{c["header"]: scaled_mean(row["cells"][c["name"]], c) for c in content["columns"]}}
        for row in split["rows"]
    ]


def _quoted(split: Row) -> list[str]:
    """The paper's rows of this split's level, with their heading."""
    headers = paper_headers()
    rows = [
        {"": f"{name} (quoted)", **dict(zip(headers, values, strict=True))}
        for name, values in paper.A2[split["paper"]].items()
    ]
    return [
        f"### Quoted from the paper: {split['paper']}\n",
        f"{paper.SOURCE}. {paper.note(split['sizes'])}\n",
        markdown_table(rows, {"": None, **dict.fromkeys(headers)}),
    ]


def frames_csv(content: Row, records: Sequence[Row]) -> str:
    """``frames.csv``: one row per frame, every value in full; empty if there is none."""
    curves = [c["name"] for c in content["columns"] if c["curve"]]
    rows = [["split", "restorer", "clip", "frame", *curves]]
    for record in records:
        for name, own in record["restorers"].items():
            for t in range(record["frames"]):
                values = (own["per_frame"][m][t] for m in curves)
                rows.append([record["split"], name, record["clip"], t, *("" if v is None else v for v in values)])
    return _csv(rows)


def clips_csv(content: Row, records: Sequence[Row]) -> str:
    """``clips.csv``: one row per clip and restorer: its scores, and how many frames have no value."""
    scored = [c["name"] for c in content["columns"]]
    rows = [["split", "restorer", "clip", "frames", *scored, *(f"missing frames: {m}" for m in scored)]]
    for record in records:
        for name, own in record["restorers"].items():
            values = ["" if (v := own["scores"].get(m)) is None else v for m in scored]
            missing = [own["missing"].get(m, 0) for m in scored]
            rows.append([record["split"], name, record["clip"], record["frames"], *values, *missing])
    return _csv(rows)


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
