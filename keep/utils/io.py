"""The one atomic write: a file or a folder appears under its name complete, or not at all."""

import contextlib
import os
import re
import secrets
import shutil
from pathlib import Path
from types import TracebackType


class AtomicWrite:
    """A temporary name to write under; :meth:`commit` renames it to ``path`` in one step.

    As a context manager it gives the temporary name, commits at the end of the block, and removes what was written
    when the block fails. The name is hidden, beside ``path``, and has its suffix: many writers go by that.

    Args:
        path: the final name of a file or a folder; its parent folder must exist. An existing file is replaced.
        durable: sync the file and its folder to disk, so that after a power cut the old or the new file is complete.

    Attributes:
        temporary: the name to write under.
    """

    def __init__(self, path: str | Path, durable: bool = False) -> None:
        self.path, self.durable = Path(path), durable
        # The random part: on a shared disk, containers on two machines may have the same process number.
        unique = f"{os.getpid()}-{secrets.token_hex(4)}"
        self.temporary = self.path.with_name(f".{self.path.stem}.{unique}{self.path.suffix}")

    def commit(self) -> None:
        if self.durable:
            _sync(self.temporary)
        self.temporary.replace(self.path)
        if self.durable:
            with contextlib.suppress(OSError):  # some network file systems cannot sync a folder
                _sync(self.path.parent)

    def discard(self) -> None:
        """Remove what was written; after :meth:`commit` there is nothing to remove."""
        if self.temporary.is_dir():
            shutil.rmtree(self.temporary)
        else:
            self.temporary.unlink(missing_ok=True)

    def __enter__(self) -> Path:
        return self.temporary

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None:
                self.commit()
        finally:
            self.discard()
        if isinstance(error, OSError) and error.filename is None:  # a full disk: the write itself has no name
            error.filename = str(self.path)


def write_file(path: str | Path, content: bytes | str) -> None:
    """Write ``content`` (text as UTF-8) to ``path``; its folder is made where there is none."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with AtomicWrite(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def link_or_copy(source: Path, target: Path) -> None:
    """``target`` becomes ``source``, durably: a hard link where the file system has them, else a copy."""
    if target.exists() and target.samefile(source):
        return
    with AtomicWrite(target, durable=True) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes of this machine left of earlier writes of ``path``."""
    pattern = re.compile(re.escape(f".{path.stem}.") + r"(\d+)-[0-9a-f]+" + re.escape(path.suffix))
    for file in path.parent.iterdir() if path.parent.is_dir() else ():
        match = pattern.fullmatch(file.name)
        if match and (int(match[1]) == os.getpid() or not _is_alive(int(match[1]))):
            shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)


def remove_hidden_files(folder: Path) -> None:
    """Remove the hidden files of a folder that one run owns: only killed writes leave such files there."""
    for path in folder.glob(".*"):
        if path.is_file():
            path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True
