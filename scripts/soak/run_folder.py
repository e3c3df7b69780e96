"""What scripts/soak/kills.py reads from the folder of a training run, and the comparison of two runs."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from keep.utils import weight_files
from keep.utils.errors import UserError


def last_step(folder: Path) -> int:
    """The step of the last complete line of ``log.jsonl``; 0 where there is none."""
    try:
        with (folder / "log.jsonl").open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 4096))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return 0
    for line in reversed(lines):
        try:
            return json.loads(line)["step"]
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    return 0


def unfinished(folder: Path) -> list[Path]:
    """Temporary files of checkpoints that are being written."""
    return [p for part in ("models", "training_states") for p in (folder / part).glob(".*")]


def check_checkpoints(folder: Path) -> tuple[int, str]:
    """Step of the newest training state (0: none), and the fault of a damaged checkpoint ("": none)."""
    newest = 0
    # Hidden names are files that a kill left unfinished.
    for path in [*(folder / "training_states").glob("[!.]*.state"), *(folder / "models").glob("[!.]*.pth")]:
        try:
            torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds of errors for a damaged file
            return newest, f"{path.name} is damaged: {error}"
        if path.suffix == ".state":
            newest = max(newest, int(path.stem))
    for path in (folder / "models").glob("[!.]*.safetensors"):
        try:
            weight_files.load(path)
        except UserError as error:
            return newest, str(error)
    return newest, ""


def differences(iters: int, complete: Path, killed: Path) -> list[str]:
    """The differences between the killed run and the uninterrupted one."""
    names = (f"training_states/{iters}.state", "models/net_latest.pth", "models/net_best.pth")
    found = []
    for name in names:
        if not (killed / name).is_file():
            found.append(f"{name} is missing")
            continue
        a, b = (dict(weight_files.load(folder / name)) for folder in (complete, killed))
        for content in (a, b):
            content.pop("options")  # the runs' names differ
        found += [f"{name}: {path}" for path in unequal(a, b)]
    a, b = (records(folder / "log.jsonl") for folder in (complete, killed))
    if a != b:
        first = next((x["step"] for x, y in zip(a, b, strict=False) if x != y), min(len(a), len(b)))
        found.append(f"log.jsonl: {len(a)} and {len(b)} records; the first difference is at step {first}")
    return found


def records(path: Path) -> list[dict[str, Any]]:
    """The records, one a step, without times. A validation that was repeated may have two lines."""
    steps: dict[int, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        steps.setdefault(record["step"], {}).update({k: v for k, v in record.items() if not k.startswith("time/")})
    return list(steps.values())


def unequal(a: Any, b: Any, path: str = "") -> list[str]:
    """Paths inside two nested values at which they are not equal bit for bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape
        return [] if same and a.numpy().tobytes() == b.numpy().tobytes() else [path]
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if a.keys() != b.keys():
            return [f"{path}: different keys"]
        return [p for k in a for p in unequal(a[k], b[k], f"{path}.{k}" if path else str(k))]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [p for i, (x, y) in enumerate(zip(a, b, strict=True)) for p in unequal(x, y, f"{path}.{i}")]
    return [] if a == b else [path]
