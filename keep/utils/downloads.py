"""Pretrained weights of other people's networks: found, downloaded once, checked by hash, never guessed."""

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

from keep.utils.errors import UserError

CHUNK = 1 << 20
TIMEOUT = 30.0  # seconds without a byte


class NotAtHand(UserError):  # noqa: N818, named as it reads in an except clause
    """A pretrained network is not on this machine and could not be had; a loss may be told to go on without it."""


def cache_folder() -> Path:
    """``$KEEP_HOME``, or ``~/.cache/keep`` where that is not set."""
    return Path(os.environ.get("KEEP_HOME") or Path.home() / ".cache" / "keep").expanduser()


def fetch(url: str, sha256_prefix: str, file_name: str, cache: Path | None = None, option: str = "weights") -> Path:
    """The local copy of ``url``: from torch.hub's cache, from ours, or downloaded into ours.

    A download that was cut short stays as ``FILE_NAME.part``, and the next call continues it.

    Args:
        url: where the file is published.
        sha256_prefix: first hex digits of its sha256; a copy that does not match is never returned.
        file_name: its name in the cache.
        cache: the cache folder; by default :func:`cache_folder`.
        option: the option that names a file instead, for messages.

    Raises:
        NotAtHand: no copy here and the download failed (no network, no such file, disk not writable).
        UserError: a copy in our cache, or what was downloaded, is not the expected file.
    """
    hub = Path(torch.hub.get_dir()) / "checkpoints" / file_name
    if hub.is_file() and sha256(hub).startswith(sha256_prefix):
        return hub
    path = (cache or cache_folder()) / file_name
    part = path.with_name(f"{file_name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _only_here(part, path):
            if not path.is_file():
                _download(url, part, sha256_prefix)
                part.replace(path)
                return path
    except (OSError, http.client.HTTPException) as error:
        raise NotAtHand(
            f"{file_name} is not at hand and {url} could not be downloaded ({error}): "
            f"put the file at {path}, or set option {option!r} to where it is"
        ) from error
    if not sha256(path).startswith(sha256_prefix):
        raise UserError(f"{path} is damaged (its sha256 does not start with {sha256_prefix}): delete it")
    return path


@contextmanager
def _only_here(part: Path, path: Path) -> Iterator[None]:
    """Within, no other process of this machine writes ``part``; nothing to wait for once ``path`` is there."""
    try:
        import fcntl
    except ImportError:  # Windows has no flock: two downloads at once are then the user's to avoid
        yield
        return
    while not path.is_file():
        with part.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # The one we waited for may have finished (renamed it) or given up (removed it): look again.
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
    """``part`` becomes the whole of ``url``, checked by its hash; a remainder that does not fit is begun anew."""
    while True:
        begun = part.is_file() and part.stat().st_size > 0
        _complete(url, part)
        if sha256(part).startswith(sha256_prefix):
            return
        os.truncate(part, 0)
        if not begun:
            raise UserError(f"{url} gave another file than expected: its sha256 does not start with {sha256_prefix}")


def _complete(url: str, part: Path) -> None:
    """Download ``url`` to ``part`` under a progress bar, from where an earlier attempt stopped if the server can."""
    from tqdm import tqdm

    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        return  # nothing comes after what is here: the hash tells whether it is the whole file
    with answer:
        continued = have and answer.status == http.HTTPStatus.PARTIAL_CONTENT
        have = have if continued else 0
        size = int(answer.headers.get("Content-Length") or 0)
        name = url.rpartition("/")[2]
        with (
            part.open("ab" if continued else "wb") as file,
            tqdm(total=have + size if size else None, initial=have, unit="B", unit_scale=True, desc=name) as bar,
        ):
            for chunk in _chunks(answer):
                file.write(chunk)
                bar.update(len(chunk))
        if size and bar.n != have + size:
            raise OSError(f"the connection ended after {bar.n} of {have + size} bytes; the next attempt goes on there")


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk


def sha256(path: Path) -> str:
    """The sha256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def torchvision_weights(file_name: str, weights: Path | None = None, option: str = "weights") -> Path:
    """The file ``weights`` where one is given; otherwise torchvision's published ``file_name`` (see :func:`fetch`).

    Args:
        file_name: as torchvision publishes it, with the first digits of its sha256: ``vgg16-397923af.pth``.
    """
    if weights is not None:
        path = Path(weights).expanduser()
        if not path.is_file():
            raise UserError(f"{option}: there is no file {path} (expected: {file_name})")
        return path
    match = re.search(r"-([0-9a-f]{8,})\.pth$", file_name)
    if match is None:
        raise ValueError(f"{file_name} carries no hash")
    return fetch(f"https://download.pytorch.org/models/{file_name}", match[1], file_name, option=option)
