"""Compiled kernels, kept between processes: the first start compiles for minutes, later ones read a file."""

import hashlib
import importlib.metadata
import platform
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn

from keep.utils.downloads import cache_folder
from keep.utils.io import write_file
from keep.utils.logging import log

HEADER = b"keep compiled 1\n"
"""Begins every file; the SHA-256 of the rest follows, 32 bytes."""


class CompileCache:
    """What ``torch.compile`` made for one network: a file for each shape of the frames.

    A file is PyTorch's own collection of artifacts (``torch.compiler.save_cache_artifacts``). It contains code: use
    no file of others. It is bound to the network, the shape, the dtypes, the processor or card, and the versions; what
    fits none of them is not read. A damaged file is reported in one line and replaced.

    Args:
        net: the network, before it is compiled. Its weights do not matter, only their names, shapes and dtypes.
        folder: where the files are; by default ``compiled`` in :func:`keep.utils.downloads.cache_folder`.
    """

    def __init__(self, net: nn.Module, folder: Path | None = None) -> None:
        self.folder = cache_folder() / "compiled" if folder is None else folder
        self._net = [(name, type(module).__name__) for name, module in net.named_modules()]
        self._net += [(name, f"{tuple(p.shape)} {p.dtype}") for name, p in net.named_parameters()]
        self._path: Path | None = None
        self._seen: set[Hashable] = set()
        self._stored: set[tuple[str, str]] = set()  # artifacts in the files read or written so far

    def load(self, shape: tuple[int, ...], device: torch.device) -> None:
        """Read the file for frames of this shape, once. Called before the network runs on them."""
        path = self.folder / f"{self.key(shape, device)}.bin"
        if path == self._path:
            return
        self._path = path
        content = read(path)
        if content is None:
            return
        info = torch.compiler.load_cache_artifacts(content)
        if info is None:
            log.warning(f"{path}: PyTorch cannot read these compiled kernels; compiling again")
        else:
            self._stored |= _names(info)

    def save(self, call: Hashable) -> None:
        """Write what was compiled for this kind of call, after the first one; nothing if the file has it."""
        if self._path is None or call in self._seen:
            return
        self._seen.add(call)
        found = torch.compiler.save_cache_artifacts()
        if found is None or _names(found[1]) <= self._stored:
            return
        content, info = found
        try:
            write_file(self._path, HEADER + hashlib.sha256(content).digest() + content)
            self._stored |= _names(info)
        except OSError as error:
            log.warning(f"{self._path}: compiled kernels are not kept: {error.strerror or error}")

    def key(self, shape: tuple[int, ...], device: torch.device) -> str:
        """Hash of everything that compiled kernels depend on."""
        if device.type == "cuda":
            card = (
                f"{torch.cuda.get_device_name(device)} {torch.cuda.get_device_capability(device)} {torch.version.cuda}"
            )
        else:
            card = f"{platform.machine()} {sorted(torch.cpu.get_capabilities().items())} {torch.get_num_threads()}"
        versions = [torch.__version__, _version("triton"), platform.python_version(), _version("keep-vfsr")]
        return hashlib.sha256(repr((self._net, shape, card, versions)).encode()).hexdigest()[:24]


def read(path: Path) -> bytes | None:
    """The content of a file; None if there is none. A damaged one is reported and counts as none."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning(f"{path}: compiled kernels cannot be read ({error.strerror or error}); compiling again")
        return None
    content = data[len(HEADER) + 32 :]
    if data[: len(HEADER) + 32] != HEADER + hashlib.sha256(content).digest():
        log.warning(f"{path}: compiled kernels are damaged; compiling again")
        return None
    return content


def _names(info: Any) -> set[tuple[str, str]]:
    return {(kind, name) for kind, names in info.artifacts.items() for name in names}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"
