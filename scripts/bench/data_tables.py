"""The measurements of scripts/bench/data.py, and the tables made of them."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keep.utils.tables import markdown_table

STAGES = ("blur and resize", "noise", "codec")
Seconds = dict[str, float]
"""Stage → seconds."""


@dataclass
class Times:
    """Measurements, one value a round.

    Attributes:
        degrading: implementation → seconds by stage.
        reading: source → seconds to read a clip.
        cpu: source, or ``ours`` → CPU seconds.
        difference: mean absolute difference of our clip and the plain one before the codec, in grey levels.
    """

    degrading: dict[str, list[Seconds]]
    reading: dict[str, list[float]]
    cpu: dict[str, list[float]]
    difference: list[float]


def report(head: str, times: Times, trips: dict[str, list[float]]) -> str:
    """All tables as Markdown, below a line ``head``."""
    codecs = [
        {"codec, 20 frames of 128×128": k, "ms": 1e3 * statistics.median(v), "/ ours": ratio(v, trips["ours"])}
        for k, v in trips.items()
    ]
    tables = [stage_rows(times), reading_rows(times), cpu_rows(times), codecs]
    stages, reading, cpu, codec = (markdown_table(rows, list(rows[0]), digits=1) for rows in tables)
    worst = max(times.difference)
    texts = [
        head,
        stages,
        f"Before the codec, ours and plain differ by {worst:.4f} of 255 grey levels (the worst clip's mean).",
        reading,
        cpu,
        codec,
    ]
    return "\n\n".join(t.strip() for t in texts) + "\n"


def stage_rows(times: Times) -> list[dict[str, Any]]:
    """A row a stage, and one of their sum: milliseconds a clip of each implementation, and its ratio to ours."""
    rows = []
    for stage in (*STAGES, "all"):
        seconds = {
            name: [c.get(stage, 0.0) if stage in STAGES else sum(c.values()) for c in clocks]
            for name, clocks in times.degrading.items()
        }
        row: dict[str, Any] = {"ms a clip": stage, **{n: 1e3 * statistics.median(s) for n, s in seconds.items()}}
        rows.append({**row, **{f"{n} / ours": ratio(s, seconds["ours"]) for n, s in seconds.items() if n != "ours"}})
    return rows


def reading_rows(times: Times) -> list[dict[str, Any]]:
    """A row a source: clips per second, reading included."""
    totals = {name: [sum(c.values()) for c in clocks] for name, clocks in times.degrading.items()}
    rows = []
    for source, read in times.reading.items():
        row: dict[str, Any] = {"with reading": source, "ms to read": 1e3 * statistics.median(read)}
        both = {name: [r + t for r, t in zip(read, total, strict=True)] for name, total in totals.items()}
        for name, seconds in both.items():
            row[f"{name}, clips/s"] = 1 / statistics.median(seconds)
            if name == "plain":
                row["plain / ours"] = ratio(seconds, both["ours"])
        rows.append(row)
    return rows


def cpu_rows(times: Times) -> list[dict[str, Any]]:
    """A row a source: CPU time, and the clips per second that it allows."""
    ours = statistics.fmean(times.cpu["ours"])
    rows = []
    for source in times.reading:
        read = statistics.fmean(times.cpu[source])
        row = {"CPU time, mean": source, "ms to read": 1e3 * read, "ms to degrade, ours": 1e3 * ours}
        rows.append({**row, "clips/s a core": 1 / (read + ours), "16 workers": 16 / (read + ours)})
    return rows


def ratio(times: Sequence[float], ours: Sequence[float]) -> str:
    """Median, lowest and highest ratio of the rounds."""
    ratios = [a / max(b, 1e-9) for a, b in zip(times, ours, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} – {max(ratios):.2f})"
