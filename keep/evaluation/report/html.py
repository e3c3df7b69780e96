"""``report.html``: the results in a browser.

One file with all numbers, styles and scripts; it loads videos and pictures from ``media/`` and times from
``seconds/times.js``, nothing else, and works from ``file://``. Without ``media/`` it still shows tables and curves.
"""

import html
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from string import Template
from typing import Any
from urllib.parse import quote

from keep.evaluation.report import paper
from keep.evaluation.report.notes import missing_values, origin_of, paper_headers, too_few

DIGITS = 6  # of a value on the page; the other files hold all digits


def page(content: Mapping[str, Any], options: str, records: Sequence[Mapping[str, Any]], worst: int) -> str:
    """The page of a run.

    Args:
        content: see :func:`keep.evaluation.report.write.write_report`.
        options: the options file as text.
        records: of all clips, split by split.
        worst: how many worst frames of each restorer are shown per split.
    """
    splits = []
    for split in content["splits"]:
        own = [r for r in records if r["split"] == split["name"]]
        note = paper.note(split["sizes"]) if split["paper"] else ""
        shown = {"clips": [_clip(r) for r in own], "worst": _worst(own, content, worst), "note": note}
        splits.append({**split, **shown, "missing": missing_values(split), "few": too_few(split)})
    quoted = {
        "source": paper.SOURCE,
        "headers": paper_headers(),
        "better": paper.HIGHER_IS_BETTER,
        "decimals": paper.DECIMALS,
        "levels": {s["paper"]: paper.A2[s["paper"]] for s in content["splits"] if s["paper"]},
    }
    data = {**content, "origin": origin_of(content), "splits": splits, "options": options, "paper": quoted}
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Template(_part("page.html")).substitute(
        title=html.escape(content["name"]),
        style=_part("page.css"),
        script=_part("page.js"),
        data=text.replace("<", "\\u003c"),  # a "</script>" in a name must not end the element
    )


def _part(name: str) -> str:
    return (files("keep.evaluation.report") / name).read_text(encoding="utf-8")


def _clip(record: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a record that the page shows."""
    media = record["media"] or {}
    curves: dict[str, dict[str, Any]] = {}
    for restorer, own in record["restorers"].items():
        for metric, values in own["per_frame"].items():
            curves.setdefault(metric, {})[restorer] = [_rounded(v) for v in values]
        if "gain" in own:
            curves.setdefault("gain", {})[restorer] = [_rounded(v) for v in own["gain"]]
    return {
        "name": record["clip"],
        "frames": record["frames"],
        "fps": record.get("fps", 25),
        "size": record.get("size"),
        "degradation": record.get("degradation", []),
        "scores": {
            name: {m: _rounded(v) for m, v in own["scores"].items()} for name, own in record["restorers"].items()
        },
        "curves": curves,
        "videos": _urls(media.get("videos", {})),
        "gains": _urls(media.get("gains", {})),
        "errors": _urls(media.get("errors", {})),
        "judged": {name: [quote(path) for path in paths] for name, paths in media.get("judged", {}).items()},
        "slices": _urls(media.get("slices", {})),
        "row": media.get("row", 0),
    }


def _worst(records: Sequence[Mapping[str, Any]], content: Mapping[str, Any], count: int) -> dict[str, list[Any]]:
    """Restorer → its worst frames over all clips, worst first."""
    higher = {c["name"]: c["better"] for c in content["columns"]}
    found: dict[str, list[Any]] = {name: [] for name in content["restorers"]}
    for record in records:
        for restorer, frame in ((record["media"] or {}).get("worst") or {}).items():
            if restorer in found:
                found[restorer].append({**frame, "clip": record["clip"], "file": quote(frame["file"])})
    return {
        name: sorted(frames, key=lambda f: f["value"] if higher[f["metric"]] else -f["value"])[:count]
        for name, frames in found.items()
    }


def _urls(paths: Mapping[str, str]) -> dict[str, str]:
    return {name: quote(path) for name, path in paths.items()}


def _rounded(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
