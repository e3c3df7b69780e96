"""The results folder of the GPU kit: few files, each complete at any moment, whatever is killed when.

``summary.md`` and ``summary.json`` hold every row of every job, ``results.zip`` the logs and the files that the jobs
wrote. They are written again whenever a job has written something. The number of files stays small on purpose: some
machines hand back only a few.
"""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from keep.utils.io import write_file
from keep.utils.tables import markdown_table
from scripts.gpu_kit.jobs import Outcome, last_lines

RUN_FILES = ("options.yml", "train.log", "log.jsonl")
"""Files of a training run that ``results.zip`` holds."""


class Results:
    """Writes the summary and the archive of a kit's run.

    Args:
        out: the results folder.
        work: folder of the jobs' folders.
        head: what the run was, for the summary.
    """

    def __init__(self, out: Path, work: Path, head: Mapping[str, Any]) -> None:
        self.out, self.work, self.head = out, work, dict(head)
        self.outcomes: list[Outcome] = []
        self.weights: list[dict[str, Any]] = []
        self.runs: dict[str, Path] = {}
        self._seen: Any = None

    def update(self, force: bool = False) -> None:
        """Write everything again if a job has written something since, or the state of a job has changed."""
        seen = self._state()
        if not force and seen == self._seen:
            return
        self._seen = seen
        for outcome in self.outcomes:
            if (self.work / outcome.name).is_dir():
                outcome.tables = read_tables(self.work / outcome.name)
                if outcome.status in ("failed", "out of time"):
                    outcome.log = last_lines(self.work / outcome.name / "log.txt")
        content = {**self.head, "jobs": [asdict(o) for o in self.outcomes], "weights": self.weights}
        write_file(self.out / "summary.json", json.dumps(content, indent=1) + "\n")
        write_file(self.out / "summary.md", to_markdown(self.head, self.outcomes, self.weights))
        write_file(self.out / "results.zip", self._archive())

    def _files(self) -> dict[str, Path]:
        """Name in the archive → file."""
        found = {str(p.relative_to(self.work)): p for p in sorted(self.work.rglob("*")) if p.is_file()}
        for name, folder in self.runs.items():
            found |= {f"{name}/{part}": folder / part for part in RUN_FILES if (folder / part).is_file()}
        return {name: path for name, path in found.items() if not path.name.startswith(".")}

    def _state(self) -> Any:
        sizes = {}
        for name, path in self._files().items():
            try:
                stat = path.stat()
            except FileNotFoundError:  # renamed by its job
                continue
            sizes[name] = (stat.st_size, stat.st_mtime_ns)
        return sizes, [o.status for o in self.outcomes], json.dumps(self.weights)

    def _archive(self) -> bytes:
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, path in self._files().items():
                try:
                    archive.writestr(name, path.read_bytes())
                except FileNotFoundError:
                    continue
        return data.getvalue()


def read_tables(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The tables in a job's JSON files: title → rows. A file that is not complete yet is left out."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.rglob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        name = str(path.relative_to(folder).with_suffix(""))
        for key, rows in content.items() if isinstance(content, dict) else [("rows", content)]:
            if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
                found[name if key == "rows" else f"{name}: {key}"] = rows
    return found


def to_markdown(head: Mapping[str, Any], outcomes: Sequence[Outcome], weights: Sequence[Mapping[str, Any]]) -> str:
    """The summary as a page: the jobs, then the tables of each."""
    lines = ["# Results of the GPU kit\n", *(f"- {k}: {v}" for k, v in head.items()), ""]
    jobs = [
        {"job": o.name, "result": o.status, "s": round(o.seconds, 1), "limit, s": round(o.limit, 1), "what": o.what}
        for o in outcomes
    ]
    lines.append(markdown_table(jobs, list(jobs[0]), 1))
    if weights:
        lines += ["## Weights\n", "`python -m scripts.gpu_kit.join FOLDER` puts them together.\n"]
        lines.append(markdown_table(weights, list(weights[0]), 1))
    for outcome in outcomes:
        if outcome.tables or outcome.log:
            lines.append(f"## {outcome.name}\n")
        for title, rows in outcome.tables.items():
            lines += [f"{title}:\n", markdown_table(rows, list(dict.fromkeys(k for row in rows for k in row)))]
        if outcome.log:
            lines += ["The log ends with:\n", "```", *outcome.log, "```\n"]
    return "\n".join(lines)
