"""One record file per clip: what ``keep.test`` measured, and how it resumes.

A record is reused only if its key matches: a hash of everything that the numbers of the clip depend on (data, seed,
code, versions, plugins, the files of the clip). Each restorer in it has its own key (its options, the metrics, the
contents of the weight files of both), so that a new restorer leaves the numbers of the others unchanged. Records hold
no times: the same run writes the same bytes, in one launch or in several, on one rank or on many. Only a failure that
can be retried stores the launch in which it happened.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from keep.evaluation.evaluate import ClipResult, ClipScore, Failure, Table
from keep.evaluation.report.origin import launch
from keep.utils.io import write_file


def file_name(name: str) -> str:
    """``name`` with special characters as %XX; different names stay different."""
    return quote(name, safe=" ()+,=@[]") if name.strip(".") else name.replace(".", "%2E")


@dataclass(frozen=True)
class Unit:
    """One clip of one split: the unit of work.

    Attributes:
        number: of the clip in its split.
        key: of its record.
        folder: of the results.
        restorer_keys: restorer → key of its part of the record.
    """

    split: str
    number: int
    clip: str
    key: str
    folder: Path
    restorer_keys: Mapping[str, str] = field(default_factory=dict)

    def path(self, kind: str, suffix: str = "") -> Path:
        """``clips/SPLIT/CLIP.json`` and the like."""
        return self.folder / kind / file_name(self.split) / (file_name(self.clip) + suffix)

    def read(self) -> dict[str, Any] | None:
        """The parts of the record whose keys match; None if there is no such record."""
        try:
            record = json.loads(self.path("clips", ".json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(record, dict) or record.get("key") != self.key:
            return None
        own, failures = record.get("restorers", {}), record.get("failures", [])
        return {
            **record,
            "restorers": {name: part for name, part in own.items() if part["key"] == self.restorer_keys.get(name, "")},
            "failures": [f for f in failures if f["key"] == self.restorer_keys.get(f["restorer"], "")],
        }

    def samples(self) -> dict[str, np.ndarray]:
        """The stored samples for metrics of sets."""
        try:
            with np.load(self.path("clips", ".npz")) as arrays:
                return {k: arrays[k] for k in arrays.files}
        except OSError:
            return {}

    def write(self, record: Mapping[str, Any], samples: Mapping[str, np.ndarray]) -> None:
        """Write the record, and before it the samples for metrics of sets, if any."""
        if samples:
            buffer = BytesIO()
            np.savez(buffer, allow_pickle=False, **samples)
            write_file(self.path("clips", ".npz"), buffer.getvalue())
        write_json(self.path("clips", ".json"), {"key": self.key, **record})


def record_of(
    unit: Unit, sample: Mapping[str, Any], result: ClipResult, media: Any, kept: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The record of a clip, as plain data for JSON; ``kept``: the old record, for restorers that were not run again."""
    clips = {"gt": sample["gt"], **({"lq": sample["lq"]} if "lq" in sample else {})}
    restorers = dict(kept["restorers"]) if kept else {}
    failures = [f for f in (kept["failures"] if kept else []) if f["restorer"] in restorers]
    for score in result.scores:
        restorers[score.restorer] = {
            "key": unit.restorer_keys.get(score.restorer, ""),
            "scores": plain(score.scores),
            "missing": score.missing,
            "per_frame": plain(score.per_frame),
        }
        if score.restorer in result.gains:
            gains = result.gains[score.restorer]
            restorers[score.restorer]["gain"] = plain(gains.reshape(len(gains), -1).mean(axis=1).astype(np.float64))
    failures += [_failure(unit, f) for f in result.failures]
    order = list(unit.restorer_keys) or list(restorers)
    return {
        "split": unit.split,
        "clip": unit.clip,
        "number": unit.number,
        "frames": len(sample["gt"]),
        "size": list(sample["gt"].shape[-2:]),
        "fps": float(sample.get("fps", 25)),
        "degradation": json.loads(sample.get("degradation") or "[]"),
        "sha256": {k: hashlib.sha256(v.contiguous().numpy().tobytes()).hexdigest() for k, v in clips.items()},
        "restorers": {name: restorers[name] for name in order if name in restorers},
        "failures": sorted(failures, key=lambda f: order.index(f["restorer"]) if f["restorer"] in order else -1),
        "media": media,
        **_launch(failures),
    }


def failed_record(unit: Unit, message: str) -> dict[str, Any]:
    """The record of an unreadable clip."""
    failures = [_failure(unit, Failure("", None, message))]
    return {"split": unit.split, "clip": unit.clip, "number": unit.number, "frames": 0, "restorers": {},
            "failures": failures, "media": None, **_launch(failures)}  # fmt: skip


def _failure(unit: Unit, failure: Failure) -> dict[str, Any]:
    return {**vars(failure), "key": unit.restorer_keys.get(failure.restorer, "")}


def _launch(failures: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {} if all(f["lasting"] for f in failures) else {"launch": launch()}


def pending_restorers(
    record: Mapping[str, Any] | None, wanted: Mapping[str, Any], restorers: Sequence[str]
) -> list[str]:
    """The restorers still to run on a clip. Failures are retried, except lasting ones."""
    if record is None or record["media"] is None or record["media"]["wanted"] != wanted:
        return list(restorers)
    again = {f["restorer"] for f in record["failures"] if not f["lasting"]}
    names = [name for name in restorers if name in again or name not in record["restorers"]]
    return list(restorers) if names and wanted["videos"] else names  # the videos show all restorers


def settled(record: Mapping[str, Any] | None, wanted: Mapping[str, Any], restorers: Sequence[str]) -> bool:
    """Whether no rank still has to work on a clip: it is complete, or it failed in this launch."""
    return not pending_restorers(record, wanted, restorers) or (record is not None and record.get("launch") == launch())


def samples_of(result: ClipResult) -> dict[str, np.ndarray]:
    """Samples for metrics of sets, by quoted ``restorer metric which``."""
    found = {}
    for score in result.scores:
        for metric, pair in score.samples.items():
            for which, values in zip(("output", "truth"), pair, strict=True):
                found[quote(f"{score.restorer}\n{metric}\n{which}", safe="")] = values
    return found


def restorer_of(key: str) -> str:
    """The restorer in a key of :func:`samples_of`."""
    return unquote(key).split("\n")[0]


def table_of(units: Iterable[tuple[Unit, Mapping[str, Any]]], restorers: Sequence[str]) -> Table:
    """The table of one split, from its records."""
    tables = []
    for unit, record in units:
        samples = unit.samples()
        scores = [
            _score(unit, record, name, samples) for name in restorers if name in record["restorers"]
        ]  # fmt: skip
        failures = [
            (unit.clip, Failure(**{k: v for k, v in f.items() if k != "key"})) for f in record["failures"]
        ]  # fmt: skip
        tables.append(Table(scores, failures))
    return Table.merged(tables)


def _score(unit: Unit, record: Mapping[str, Any], restorer: str, samples: Mapping[str, np.ndarray]) -> ClipScore:
    own = record["restorers"][restorer]
    found: dict[str, dict[str, np.ndarray]] = {}
    for key, values in samples.items():
        name, metric, which = unquote(key).split("\n")
        if name == restorer:
            found.setdefault(metric, {})[which] = values
    return ClipScore(
        clip=unit.clip,
        restorer=restorer,
        index=unit.number,
        frames=record["frames"],
        per_frame={k: numbers(v) for k, v in own["per_frame"].items()},
        scores={k: number(v) for k, v in own["scores"].items()},
        missing=dict(own["missing"]),
        samples={k: (v["output"], v["truth"]) for k, v in found.items()},
    )


# --- keys -------------------------------------------------------------------------------------------------------


def key_of(*facts: Any) -> str:
    """A hash of plain data."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


# --- numbers in JSON, which has neither NaN nor infinity --------------------------------------------------------


def plain(value: Any) -> Any:
    """``value`` for JSON: NaN becomes null, infinity (the PSNR of equal frames) the text "inf"."""
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def number(value: Any) -> float:
    """The inverse of :func:`plain` for one number."""
    return math.nan if value is None else float(value)


def numbers(values: Iterable[Any]) -> np.ndarray:
    return np.array([number(v) for v in values], dtype=np.float64)


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as JSON, atomically."""
    write_file(path, json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
