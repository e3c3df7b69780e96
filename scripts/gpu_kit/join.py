"""Put the weights of a results folder together again; every hash is checked.

    python -m scripts.gpu_kit.join RESULTS                  writes RESULTS/weights/NAME.safetensors
    python -m scripts.gpu_kit.join RESULTS --to FOLDER
"""  # fmt: skip

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keep.config.cli import Parser, run
from keep.utils.errors import UserError
from keep.utils.io import write_file
from scripts.gpu_kit.weights import FORMAT, LIST


def main(argv: Sequence[str] | None = None) -> None:
    assert __doc__
    p = Parser(
        prog="scripts.gpu_kit.join", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )  # fmt: skip
    p.add_argument("results", type=Path, help="the results folder")
    p.add_argument("--to", type=Path, help="folder to write to (default: RESULTS/weights)")
    args = p.parse_args(argv)
    target = args.to or args.results / "weights"
    for name, data in join(args.results).items():
        write_file(target / name, data)
        print(f"{target / name}: {len(data) / 1e6:.1f} MB")


def join(folder: Path) -> dict[str, bytes]:
    """The files that were split: name → content.

    Raises:
        UserError: no list, or a part that is missing or damaged.
    """
    path = folder / LIST
    if not path.is_file():
        raise UserError(f"{folder}: there is no {LIST}: no weights were written")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        known, parts, files = content["format"] == FORMAT, content["parts"], content["files"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: not a list of weights, or a damaged one") from None
    if not known:
        raise UserError(f"{path}: written by another version (format {content['format']})")
    whole = b"".join(read_part(folder, part) for part in parts)
    found, start = {}, 0
    for file in files:
        data = whole[start : start + file["bytes"]]
        check(data, file, folder / file["name"])
        found[Path(file["name"]).name] = data
        start += file["bytes"]
    return found


def read_part(folder: Path, part: Mapping[str, Any]) -> bytes:
    path = folder / Path(part["name"]).name
    if not path.is_file():
        raise UserError(f"{path} is missing: copy all parts that {LIST} names")
    data = path.read_bytes()
    check(data, part, path)
    return data


def check(data: bytes, entry: Mapping[str, Any], path: Path) -> None:
    """Raise UserError unless size and hash are those of the list."""
    if len(data) != entry["bytes"]:
        raise UserError(f"{path} has {len(data)} bytes instead of {entry['bytes']}: copy it again")
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise UserError(f"{path} is damaged: its sha256 differs from {LIST}; copy it again")


if __name__ == "__main__":
    sys.exit(run(main))
