"""Make tables and page from the records of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keep.config.reading import to_yaml
from keep.config.schema import TestConfig
from keep.evaluation.report import paper, tables
from keep.evaluation.report.html import page
from keep.evaluation.report.latex import latex
from keep.evaluation.report.records import Unit, table_of, write_json
from keep.evaluation.report.summary import column_of, flat_rows, split_of
from keep.evaluation.report.training import training_of
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
    """Write tables, values and page into ``folder``; the same records give the same bytes.

    Args:
        about: versions, code, device, hashes of files.
        restorers: row name → built restorer.
        units: every clip, split by split, with its record.
        problems: one line for each restorer or metric that was skipped.

    Returns:
        The content of the tables, as plain data; its ``problems`` are those of the whole run.
    """
    splits = []
    for name in config.data:
        own = [(u, r) for u, r in units if u.split == name]
        table = table_of(own, list(restorers))
        level = config.paper.get(name, name if name in paper.A2 else None)
        sizes = sorted({tuple(r["size"]) for _, r in own if "size" in r})
        splits.append(split_of(name, table, [u.clip for u, _ in own], list(restorers), metrics, level, sizes))
    content = {
        "name": config.name,
        **about,
        "restorers": {name: described(restorer, config.trained.get(name, "")) for name, restorer in restorers.items()},
        "columns": [column_of(m) for m in metrics],
        "splits": splits,
        "problems": [*problems, *(line for split in splits for line in split["problems"])],
    }
    records = [_public(r) for _, r in units]
    options = to_yaml(config)
    everything = {**content, "table": flat_rows(content), "options": options, "clips": records}
    write_json(folder / "results.json", everything)
    write_file(folder / "frames.csv", tables.frames_csv(content, records))
    write_file(folder / "clips.csv", tables.clips_csv(content, records))
    write_file(folder / "table.md", tables.markdown(content))
    write_file(folder / "table.tex", latex(content))
    write_file(folder / "report.html", page(content, options, [r for _, r in units], config.save.worst))
    log.info("\n" + tables.console(content))
    for name, text in content["restorers"].items():
        log.info(f"  {name}: {text}")
    return content


def _public(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without media and without the fields that only a resume needs."""
    restorers = {name: {k: v for k, v in own.items() if k != "key"} for name, own in record["restorers"].items()}
    failures = [{k: v for k, v in f.items() if k != "key"} for f in record["failures"]]
    rest = {k: v for k, v in record.items() if k not in ("key", "media", "launch")}
    return {**rest, "restorers": restorers, "failures": failures}


def described(restorer: Any, trained: str) -> str:
    """The restorer, the future it needs, and its training: ``trained`` or, if empty, what its weight file stores."""
    trained = trained or training_of(restorer)
    return describe(restorer) + _latency(restorer) + (f"; trained: {trained}" if trained else "")


def _latency(restorer: Any) -> str:
    """Frames of future that the output needs, of a restorer that has ``future_frames``."""
    if not hasattr(restorer, "future_frames"):
        return ""
    frames = restorer.future_frames
    return f"; frames of future: {'the whole clip' if frames is None else frames}"


def describe(restorer: Any) -> str:
    """One line about the restorer, for the report."""
    return restorer.describe() if hasattr(restorer, "describe") else type(restorer).__name__
