"""From a run's records to its tables and its page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keep.config.reading import to_yaml
from keep.config.schema import TestConfig
from keep.evaluation.report import paper, tables
from keep.evaluation.report.html import page
from keep.evaluation.report.records import Unit, table_of, write_json
from keep.utils.io import write_file
from keep.utils.logging import log


def write_report(
    folder: Path,
    config: TestConfig,
    about: Mapping[str, Any],
    restorers: Mapping[str, Any],
    metrics: Sequence[Any],
    units: Sequence[tuple[Unit, Mapping[str, Any]]],
    problems: Sequence[str],
) -> dict[str, Any]:
    """Tables, values and page, into ``folder``; the same records give the same bytes.

    Args:
        about: versions, code, device, hashes of files.
        restorers: row name → restorer, as built.
        units: every clip, split by split, with its record.
        problems: what was left out from the start, in lines.

    Returns:
        What the tables hold, as plain data; its ``problems`` are all lines.
    """
    splits = []
    for name in config.data:
        own = [(u, r) for u, r in units if u.split == name]
        table = table_of(own, list(restorers))
        level = config.paper.get(name, name if name in paper.A2 else None)
        sizes = sorted({tuple(r["size"]) for _, r in own if "size" in r})
        splits.append(tables.split_of(name, table, [u.clip for u, _ in own], list(restorers), metrics, level, sizes))
    content = {
        "name": config.name,
        **about,
        "restorers": {name: describe(restorer) for name, restorer in restorers.items()},
        "columns": [tables.column_of(m) for m in metrics],
        "splits": splits,
        "problems": [*problems, *(line for split in splits for line in split["problems"])],
    }
    records = [_told(r) for _, r in units]
    options = to_yaml(config)
    everything = {**content, "table": tables.flat_rows(content), "options": options, "clips": records}
    write_json(folder / "results.json", everything)
    write_file(folder / "frames.csv", tables.frames_csv(content, records).encode())
    write_file(folder / "clips.csv", tables.clips_csv(content, records).encode())
    write_file(folder / "table.md", tables.markdown(content).encode())
    write_file(folder / "table.tex", tables.latex(content).encode())
    write_file(folder / "report.html", page(content, options, [r for _, r in units], config.save.worst).encode())
    log.info("\n" + tables.console(content))
    for name, text in content["restorers"].items():
        log.info(f"  {name}: {text}")
    return content


def _told(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without what is for going on alone, and without what is no number."""
    told = {k: v for k, v in record.items() if k not in ("key", "media", "launch")}
    told["restorers"] = {
        name: {k: v for k, v in own.items() if k != "key"} for name, own in record["restorers"].items()
    }
    told["failures"] = [{k: v for k, v in f.items() if k != "key"} for f in record["failures"]]
    return told


def describe(restorer: Any) -> str:
    """The restorer in words."""
    return restorer.describe() if hasattr(restorer, "describe") else type(restorer).__name__
