"""Where a restored video comes from: hashes, network, options, versions; in plain words and as JSON."""

import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from keep.utils.downloads import sha256
from keep.utils.io import write_file
from keep.utils.version import __version__

STATEMENT = (
    "Faces in this video were restored by a neural network (KEEP). It adds detail that the camera did not record; they "
    "may look like somebody else."
)


UNCHANGED = "No face was restored in this video."


def file_hash(path: Path) -> str:
    """The sha256 of a file, or of a folder's files with their names, as hex."""
    if path.is_file():
        return sha256(path)
    digest = hashlib.sha256()
    for file in sorted(f for f in path.rglob("*") if f.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()} {sha256(file)}\n".encode())
    return digest.hexdigest()


def origin(
    source: Path, network: Mapping[str, Any], options: Mapping[str, Any], statement: str = STATEMENT
) -> dict[str, Any]:
    """The record of a restoration, as plain data.

    Args:
        source: the input.
        network: what is known of the network.
        options: how it was restored.
        statement: what was done, in plain words.
    """
    return {
        "statement": statement,
        "input": {"file": source.name, "sha256": file_hash(source)},
        "network": dict(network),
        "options": {k: v for k, v in options.items() if k not in ("confidence", "sign")},
        "versions": {"keep": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }


def write_record(path: Path, output: Path, record: Mapping[str, Any], complete: Path | None = None) -> None:
    """Write a record as JSON, with the hash of the finished output.

    Args:
        path: the file to write.
        output: the output.
        record: of :func:`origin`.
        complete: the output's content where it has another name yet.
    """
    content = {**record, "output": {"file": output.name, "sha256": file_hash(complete or output)}}
    write_file(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
