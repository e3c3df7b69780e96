"""Pretrained weights of other projects' networks: found in a cache or downloaded once, and checked by hash."""

import hashlib
import http
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch

from keep.utils.errors import OptionError, UserError
from keep.utils.paths import expand

CHUNK = 1 << 20
TIMEOUT = 30.0  # seconds without a byte


class Unavailable(OptionError):  # noqa: N818, named as it reads in an except clause
    """A pretrained network is not on this machine and cannot be downloaded. A loss may be set to run without it."""


def cache_folder() -> Path:
    """``$KEEP_HOME``, or ``~/.cache/keep`` if that is not set."""
    return expand(os.environ.get("KEEP_HOME") or "~/.cache/keep")


def fetch(url: str, sha256_prefix: str, file_name: str, cache: Path | None = None, option: str = "weights") -> Path:
    """The local copy of ``url``: from torch.hub's cache, from ours, or downloaded into ours.

    An interrupted download stays as ``FILE_NAME.part``; the next call resumes it.

    Args:
        url: where the file is published.
        sha256_prefix: first hex digits of its sha256; a copy that does not match is never returned.
        file_name: its name in the cache.
        cache: the cache folder; by default :func:`cache_folder`.
        option: name of the option that gives a local file instead, for messages.

    Raises:
        Unavailable: no copy on this machine, and the download failed (no network, no such file, disk not writable).
        UserError: the copy in our cache, or the download, is not the expected file.
    """
    hub = Path(torch.hub.get_dir()) / "checkpoints" / file_name
    if hub.is_file() and sha256(hub).startswith(sha256_prefix):
        return hub
    path = (cache or cache_folder()) / file_name
    part = path.with_name(f"{file_name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(part, path):
            if not path.is_file():
                _download(url, part, sha256_prefix)
                part.replace(path)
                return path
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(
            f"{file_name} is not on this machine and {url} cannot be downloaded ({error}): "
            f"put the file at {path}, or set option {{place}}{option} to its path"
        ) from error
    if not sha256(path).startswith(sha256_prefix):
        raise UserError(f"{path} is damaged (its sha256 does not start with {sha256_prefix}): delete it")
    return path


@contextmanager
def _lock(part: Path, path: Path) -> Iterator[None]:
    """Inside, no other process of this machine writes ``part``. Once ``path`` exists there is no need to wait."""
    try:
        import fcntl
    except ImportError:  # Windows has no flock: there, two downloads at the same time are not detected
        yield
        return
    while not path.is_file():
        with part.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # The process that held the lock may have finished (renamed it) or failed (removed it): check again.
            if not part.is_file() or not os.path.samestat(os.fstat(file.fileno()), part.stat()):
                continue
            try:
                yield
            finally:
                if part.is_file() and part.stat().st_size == 0:
                    part.unlink()
            return
    yield


def _download(url: str, part: Path, sha256_prefix: str) -> None:
    """Download ``url`` to ``part`` and check its hash. A partial file that does not match is downloaded again."""
    while True:
        resumed = part.is_file() and part.stat().st_size > 0
        _complete(url, part)
        if sha256(part).startswith(sha256_prefix):
            return
        os.truncate(part, 0)
        if not resumed:
            raise UserError(f"{url} is not the expected file: its sha256 does not start with {sha256_prefix}")


def _complete(url: str, part: Path) -> None:
    """Download ``url`` to ``part`` with a progress bar; resumes an earlier attempt if the server supports it."""
    from keep.utils.progress import progress_bar

    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        return  # no bytes follow: the hash decides whether the file is complete
    with answer:
        continued = have and answer.status == http.HTTPStatus.PARTIAL_CONTENT
        have = have if continued else 0
        size = int(answer.headers.get("Content-Length") or 0)
        name = url.rpartition("/")[2]
        total = have + size if size else None
        with (
            part.open("ab" if continued else "wb") as file,
            progress_bar(total=total, initial=have, unit="B", unit_scale=True, desc=name) as bar,
        ):
            for chunk in _chunks(answer):
                file.write(chunk)
                bar.update(len(chunk))
        if size and bar.n != have + size:
            raise OSError(f"the connection ended after {bar.n} of {have + size} bytes; the next attempt resumes there")


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk


def sha256(path: Path) -> str:
    """The sha256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def torchvision_weights(file_name: str, weights: Path | None = None, option: str = "weights") -> Path:
    """The file ``weights`` if given, otherwise torchvision's published ``file_name`` (see :func:`fetch`).

    Args:
        file_name: as published by torchvision, with the first digits of its sha256: ``vgg16-397923af.pth``.
    """
    if weights is not None:
        path = expand(weights)
        if not path.is_file():
            raise OptionError(f"{{place}}{option}: there is no file {path} (expected: {file_name})")
        return path
    match = re.search(r"-([0-9a-f]{8,})\.pth$", file_name)
    if match is None:
        raise ValueError(f"{file_name} has no hash in its name")
    return fetch(f"https://download.pytorch.org/models/{file_name}", match[1], file_name, option=option)
