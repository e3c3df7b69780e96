"""Weights of training runs in a results folder: float16, in files of at most 15 MB, with a list of hashes.

``weights.json`` names the files and the parts whose bytes, in order, are the files one after another. Parts are named
by the hash of the whole: new parts are written first, then the list, and then the old parts are removed, so that the
list is right at any moment.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from keep.utils.io import write_file

LIST = "weights.json"
FORMAT = 1
PART = 15_000_000
"""Most bytes of a part."""
SOURCE = "models/net_latest.safetensors"
"""The newest weights to use in a run's folder."""


def to_half(path: Path) -> bytes:
    """A safetensors file with its float32 tensors in float16, unless a value is too large for that."""
    with safe_open(path, framework="numpy") as file:
        metadata = dict(file.metadata() or {})
        tensors = {name: half(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118, no mapping
    return safetensors.numpy.save(tensors, metadata)


def half(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float16) if x.dtype == np.float32 and np.abs(x).max(initial=0) < 65000 else x


class Weights:
    """Copies the newest weights of runs into the results folder.

    Args:
        out: the results folder.
        most: most bytes of all; the oldest runs are left out first.
        since: seconds since 1970; older files are of another run of the same name.
        part: most bytes of a file.
    """

    def __init__(self, out: Path, most: int, part: int = PART, since: float = 0.0) -> None:
        self.out, self.most, self.part, self.since = out, most, part, since
        self._stamps: dict[str, Any] = {}
        self._files: dict[str, bytes] = {}

    def update(self, runs: Mapping[str, Path]) -> list[dict[str, Any]]:
        """Publish the newest weights of these runs, in the order of training, if there are newer ones.

        Returns:
            a row for each run that has weights.
        """
        changed = False
        for name, folder in runs.items():
            path = folder / SOURCE
            try:
                stat = path.stat()
                if stat.st_mtime < self.since:
                    continue
                stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
                if stamp != self._stamps.get(name):
                    self._files[name], self._stamps[name], changed = to_half(path), stamp, True
            except (OSError, SafetensorError):  # none yet, or replaced while it was read: next time
                continue
        kept: list[str] = []
        for name in reversed([n for n in runs if n in self._files]):
            if sum(len(self._files[n]) for n in kept) + len(self._files[name]) <= self.most:
                kept.insert(0, name)
        if changed and kept:
            publish(self.out, {f"{name}.safetensors": self._files[name] for name in kept}, self.part)
        left_out = "no: too large beside later runs"
        return [
            {"run": name, "MB": len(data) / 1e6, "in the folder": "yes" if name in kept else left_out}
            for name, data in self._files.items()
        ]


def publish(out: Path, files: Mapping[str, bytes], part: int = PART) -> None:
    """Write files as parts and their list; any earlier ones are removed afterwards."""
    whole = b"".join(files.values())
    digest = hashlib.sha256(whole).hexdigest()
    pieces = {f"weights_{digest[:8]}.{i // part:02}": whole[i : i + part] for i in range(0, len(whole), part)}
    for name, data in pieces.items():
        write_file(out / name, data)
    content = {"format": FORMAT, "files": entries(files), "parts": entries(pieces)}
    write_file(out / LIST, json.dumps(content, indent=1) + "\n")
    for path in out.glob("weights_*.[0-9][0-9]"):
        if path.name not in pieces:
            path.unlink()


def entries(files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    return [
        {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
    ]
