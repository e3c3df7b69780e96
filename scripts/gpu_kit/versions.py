"""Versions of the software and the hardware: ``versions.json``."""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from keep.config.cli import Parser, run
from keep.utils.io import write_file
from keep.utils.version import __version__
from scripts.bench.common import GIB, machine
from scripts.gpu_kit.kit import ROOT

PACKAGES = ("torchvision", "triton", "numpy", "opencv-python-headless", "av", "pydantic", "safetensors", "pytest")


def main(argv: Sequence[str] | None = None) -> None:
    p = Parser(prog="scripts.gpu_kit.versions", description="Write the versions of software and hardware.")
    p.add_argument("--out", type=Path, required=True, help="folder of versions.json")
    args: argparse.Namespace = p.parse_args(argv)
    rows = [{"what": what, "version": text} for what, text in found().items()]
    write_file(args.out / "versions.json", json.dumps({"rows": rows}, indent=1) + "\n")
    print("\n".join(f"{row['what']}: {row['version']}" for row in rows))


def found() -> dict[str, str]:
    """What → its version."""
    about = {
        "keep-vfsr": __version__, "commit": commit(), "python": platform.python_version(), "torch": torch.__version__,
    }  # fmt: skip
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        about |= {
            "CUDA": str(torch.version.cuda), "cuDNN": str(torch.backends.cudnn.version()), "card": card.name,
            "memory": f"{card.total_memory / GIB:.1f} GiB", "multiprocessors": str(card.multi_processor_count),
            "driver": output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        }  # fmt: skip
    about |= {"CPU": machine(torch.device("cpu")), "cores": str(os.cpu_count()), "system": platform.platform()}
    return about | {name: installed(name) for name in PACKAGES}


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def commit() -> str:
    """The commit of this copy: from the bundle's file COMMIT, or from git."""
    note = ROOT / "COMMIT"
    if note.is_file():
        return note.read_text(encoding="utf-8").strip()
    return output("git", "-C", str(ROOT), "rev-parse", "HEAD")


def output(*command: str) -> str:
    """What a command prints, or ``unknown``."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(run(main))
