"""Checks what a restored video says of its origin."""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import av.error

from keep.inference.video.outputs import record_of
from keep.inference.video.provenance import STATEMENT, file_hash
from keep.inference.video.signing import read_manifest
from keep.utils.errors import UserError

FITS, NOTHING, WRONG = 0, 1, 2
"""Results: everything found fits the file; nothing was found; something does not fit."""


def verify(path: Path) -> tuple[int, list[str]]:
    """What was found of a file's origin: the result, and lines for the user.

    Raises:
        UserError: there is no such file.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file")
    checks = [_statement(path), _manifest(path), _record(path)]
    results = [result for result, _ in checks]
    worst = WRONG if WRONG in results else FITS if FITS in results else NOTHING
    return worst, [f"{path}: {line}" for _, line in checks]


def _statement(path: Path) -> tuple[int, str]:
    """The words in the metadata. They prove nothing, since anybody can write or remove them."""
    try:
        with av.open(str(path)) as container:
            texts = container.metadata.values()
    except (av.error.FFmpegError, OSError):
        return NOTHING, "its metadata cannot be read"
    if any(STATEMENT in text for text in texts):
        return NOTHING, "its metadata says that faces were restored by a neural network"
    return NOTHING, "its metadata does not say that faces were restored"


def _manifest(path: Path) -> tuple[int, str]:
    if importlib.util.find_spec("c2pa") is None:
        return NOTHING, "a signature cannot be checked without c2pa: pip install keep-vfsr[sign]"
    found = read_manifest(path)
    if found is None:
        return NOTHING, "it is not signed"
    state, record = found
    if state not in ("Valid", "Trusted"):
        return WRONG, f"its signature does not fit: the file was changed after it was signed ({state})"
    trust = "" if state == "Trusted" else ", by a certificate that is on no trust list here"
    return FITS, f"its signature fits{trust}{_network(record)}"


def _record(path: Path) -> tuple[int, str]:
    beside = record_of(path)
    if not beside.is_file():
        return NOTHING, f"there is no record {beside.name} beside it"
    try:
        record = json.loads(beside.read_text(encoding="utf-8"))
        fits = record["output"]["sha256"] == file_hash(path)
    except (ValueError, KeyError, TypeError):
        return WRONG, f"{beside.name} is no record of a restoration"
    if not fits:
        return WRONG, f"{beside.name} is the record of another file, or this one was changed since"
    return FITS, f"{beside.name} is its record{_network(record)}"


def _network(record: Mapping[str, Any]) -> str:
    network = record.get("network") or {}
    if "weights" not in network:
        return ""
    return f"; restored with {network['weights']}, sha256 {str(network.get('sha256', ''))[:16]}…"
