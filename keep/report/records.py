"""One file a clip: what ``keep.test`` has measured, and by which a run that was stopped goes on.

A record is used again only if its key is the same: the key is a hash of all that its numbers follow from (options,
the contents of weight files and plugins, versions, the clip's files). Nothing in a record depends on the clock, so that
the same run gives the same bytes, in one go or in several, on one rank or on many.
"""

import hashlib
import json
import math
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import torch

import keep
from keep.downloads import sha256
from keep.evaluate import ClipResult, ClipScore, Failure, Table
from keep.registry import Spec
from keep.visual import write_file
from keep.weights import PUBLISHED

PACKAGES = ("torchvision", "numpy", "opencv-python-headless", "av", "lpips")


def file_name(name: str) -> str:
    """``name`` with all that a file name had better not hold as %XX; different names stay different."""
    return quote(name, safe=" ()+,=@[]") if name.strip(".") else name.replace(".", "%2E")


@dataclass(frozen=True)
class Unit:
    """One clip of one split: what is restored and scored in one piece.

    Attributes:
        number: of the clip in its split.
        key: of its record.
        folder: of the results.
    """

    split: str
    number: int
    clip: str
    key: str
    folder: Path

    def place(self, kind: str, suffix: str = "") -> Path:
        """``clips/SPLIT/CLIP.json`` and the like."""
        return self.folder / kind / file_name(self.split) / (file_name(self.clip) + suffix)

    def read(self) -> dict[str, Any] | None:
        """The record, or None where there is none with this unit's key."""
        try:
            record = json.loads(self.place("clips", ".json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) and record.get("key") == self.key else None

    def write(self, record: Mapping[str, Any], samples: Mapping[str, np.ndarray]) -> None:
        """The record, last of all the clip's files; and the samples for metrics of sets, where there are any."""
        if samples:
            buffer = BytesIO()
            np.savez(buffer, allow_pickle=False, **samples)
            write_file(self.place("clips", ".npz"), buffer.getvalue())
        write_json(self.place("clips", ".json"), {"key": self.key, **record})


def record_of(unit: Unit, sample: Mapping[str, Any], result: ClipResult, media: Any) -> dict[str, Any]:
    """The record of a clip, as plain data for JSON."""
    clips = {"gt": sample["gt"], **({"lq": sample["lq"]} if "lq" in sample else {})}
    restorers = {}
    for score in result.scores:
        restorers[score.restorer] = {
            "scores": plain(score.scores),
            "missing": score.missing,
            "per_frame": plain(score.per_frame),
        }
        if score.restorer in result.gains:
            gains = result.gains[score.restorer]
            restorers[score.restorer]["gain"] = plain(gains.reshape(len(gains), -1).mean(axis=1).astype(np.float64))
    return {
        "split": unit.split,
        "clip": unit.clip,
        "number": unit.number,
        "frames": len(sample["gt"]),
        "size": list(sample["gt"].shape[-2:]),
        "fps": float(sample.get("fps", 25)),
        "degradation": json.loads(sample.get("degradation") or "[]"),
        "sha256": {k: hashlib.sha256(v.contiguous().numpy().tobytes()).hexdigest() for k, v in clips.items()},
        "restorers": restorers,
        "failures": [vars(f) for f in result.failures],
        "media": media,
    }


def failed_record(unit: Unit, message: str) -> dict[str, Any]:
    """The record of a clip that cannot be read."""
    failure = {"restorer": "", "metric": None, "message": message}
    return {"split": unit.split, "clip": unit.clip, "number": unit.number, "frames": 0, "restorers": {},
            "failures": [failure], "media": None}  # fmt: skip


def samples_of(result: ClipResult) -> dict[str, np.ndarray]:
    """Samples for metrics of sets, by ``restorer/metric/which``."""
    found = {}
    for score in result.scores:
        for metric, pair in score.samples.items():
            for which, values in zip(("output", "truth"), pair, strict=True):
                found[quote(f"{score.restorer}\n{metric}\n{which}", safe="")] = values
    return found


def table_of(units: Iterable[tuple[Unit, Mapping[str, Any]]], restorers: Sequence[str]) -> Table:
    """The table of one split from its records."""
    tables = []
    for unit, record in units:
        samples: dict[str, np.ndarray] = {}
        if unit.place("clips", ".npz").exists():
            with np.load(unit.place("clips", ".npz")) as arrays:
                samples = {k: arrays[k] for k in arrays.files}
        scores = [
            _score(unit, record, name, samples) for name in restorers if name in record["restorers"]
        ]  # fmt: skip
        failures = [(unit.clip, Failure(**f)) for f in record["failures"]]
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


# --- what the numbers follow from ----------------------------------------------------------------------------


def versions() -> dict[str, str]:
    """Of Python, KEEP and the packages that numbers come from."""
    found = {"keep": keep.__version__, "python": platform.python_version(), "torch": torch.__version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def file_hashes(value: Any) -> dict[str, str]:
    """Every file that the options ``value`` name, and its sha256; of the authors' weights the digits in their name."""
    found: dict[str, str] = {}
    for path in _paths(value):
        if path.expanduser().is_file():
            found[str(path)] = sha256(path.expanduser())
        elif str(path) in PUBLISHED:
            found[str(path)] = PUBLISHED[str(path)][1]
    return dict(sorted(found.items()))


def _paths(value: Any) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
    elif isinstance(value, Spec):
        yield from _paths(value.options)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _paths(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _paths(item)


def key_of(*facts: Any) -> str:
    """A hash of plain data."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def clips_of(dataset: Any) -> list[tuple[str, Any]]:
    """(name, what it is read from: frames, size, time of its files) of a dataset's clips, without decoding any."""
    clips = getattr(dataset, "clips", None)
    if clips is None:  # a dataset of the user's that says nothing of them
        return [(f"{i:05d}", None) for i in range(len(dataset))]
    own = [(clip.name, [clip.frames, list(clip.fingerprint)]) for clip in clips]
    truth = getattr(dataset, "gt", None)  # of pairs: the clips above are the low-quality twins
    if truth is None:
        return own
    return [(name, [source, other]) for (name, source), (_, other) in zip(own, clips_of(truth), strict=True)]


# --- numbers in JSON, which has neither NaN nor infinity -----------------------------------------------------------


def plain(value: Any) -> Any:
    """``value`` for JSON: NaN becomes null, and infinity (the PSNR of equal frames) the text "inf"."""
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
    """Whole or not at all."""
    write_file(path, (json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode())
