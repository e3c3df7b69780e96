"""Time and memory of a run, in separate files: they differ from run to run, all other files do not."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keep.evaluation.report.records import Unit, write_json
from keep.utils.io import write_file
from keep.utils.logging import log
from keep.utils.tables import console_table, markdown_table

KINDS = {"decode": "data", "degrade": "data", "restore": "restorer", "metric": "metric", "pictures": "report"}
COLUMNS = {"part": None, "kind": None, "seconds": None, "share %": None, "ms/frame": None, "peak GiB": None}


def write_costs(folder: Path, units: Sequence[Unit], reused: int = 0) -> list[dict[str, Any]]:
    """Write ``seconds/times.json``, ``.md`` and ``.js`` (which the page reads), summed over the clips; log them.

    Args:
        folder: of the results.
        units: all clips.
        reused: how many of them this process did not score: their scores are of an earlier run or another rank.
    """
    rows = time_table([u.path("seconds", ".json") for u in units])
    origin = (
        f"{len(units) - reused} of {len(units)} clips were scored by the last run, {reused} before or by other ranks."
    )
    write_json(folder / "seconds/times.json", rows)
    write_file(folder / "seconds/times.md", f"{origin}\n\n{markdown_table(rows, COLUMNS, digits=2)}")
    page = {"keepTimes": rows, "keepOrigin": origin}
    write_file(folder / "seconds/times.js", "".join(f"window.{k} = {json.dumps(v)};\n" for k, v in page.items()))
    log.info("\ntime by part\n" + console_table(rows, COLUMNS, digits=2))
    return rows


def time_table(files: Sequence[Path]) -> list[dict[str, Any]]:
    """One row per part, in the order of the work: seconds over all clips, share, milliseconds per frame, peak memory.

    Each part counts the frames of its own clips; the last row is the sum.
    """
    seconds: dict[str, float] = {}
    frames: dict[str, int] = {}
    memory: dict[str, int] = {}
    for file in files:
        costs = _read(file)
        for part, value in costs.get("seconds", {}).items():
            seconds[part] = seconds.get(part, 0.0) + value
            frames[part] = frames.get(part, 0) + costs["frames"]
        for part, value in costs.get("memory", {}).items():
            memory[part] = max(memory.get(part, 0), value)
    total = sum(seconds.values())
    rows = [
        {
            "part": part.partition(" ")[2] or part,
            "kind": KINDS[part.partition(" ")[0]],
            "seconds": value,
            "share %": 100 * value / max(total, 1e-9),
            "ms/frame": 1000 * value / max(frames[part], 1),
            "peak GiB": memory[part] / 2**30 if memory.get(part) else None,
        }
        for part, value in sorted(seconds.items(), key=lambda item: list(KINDS).index(item[0].partition(" ")[0]))
    ]
    return [*rows, {"part": "all", "kind": "", "seconds": total, "share %": 100.0, "ms/frame": None, "peak GiB": None}]


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # only times are lost
        return {}
