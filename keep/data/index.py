"""Index of a data folder, kept between runs: listing millions of frames and probing videos is slow.

The file is ``ROOT/.keep_index.json``, or in the cache folder if the root is read-only. Every entry has a fingerprint
(size and modification time of the folder or file); changed entries are read again.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from keep.data.images import by_number
from keep.utils.downloads import cache_folder
from keep.utils.io import write_file

FORMAT = 1
FILE_NAME = ".keep_index.json"
SETTLED = 2_000_000_000  # ns: a younger file may change again with the same time stamp, and is not stored


class FolderIndex:
    """Values by path below ``root``, each kept until the path's fingerprint changes.

    Args:
        root: the data folder.
        kind: of the values; other kinds in the same file are separate.
        keep: whether :meth:`save` writes.
    """

    def __init__(self, root: Path, kind: str, keep: bool = True) -> None:
        self.root, self.kind, self.keep = root, kind, keep
        self._entries: dict[str, Any] = {}
        self._changed = False
        own = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
        self.paths = (root / FILE_NAME, cache_folder() / "index" / f"{own}.json")
        for path in self.paths:
            self._entries = {**_read(path).get(kind, {}), **self._entries}
        self._used: dict[str, Any] = {}

    def value(self, path: Path, compute: Callable[[], Any]) -> Any:
        """The stored value of ``path``, else the computed one (plain JSON data)."""
        stat = path.stat()
        mark = (stat.st_size, stat.st_mtime_ns)
        key = path.relative_to(self.root).as_posix()
        known = self._entries.get(key)
        if known is not None and tuple(known[0]) == mark:
            self._used[key] = known
            return known[1]
        value = compute()
        if time.time_ns() - stat.st_mtime_ns > SETTLED:
            self._used[key] = [list(mark), value]
            self._changed |= known is None or known[1] != value
        return value

    def walk(self, suffixes: frozenset[str], names: bool) -> Iterator[tuple[Path, Any]]:
        """(folder, its files with these suffixes) of the root and all its subfolders, in order.

        Links to folders are followed, hidden files skipped.

        Args:
            names: yield the names of the files; otherwise only their number.
        """
        seen: set[str] = set()
        waiting = [self.root]
        while waiting:
            folder = waiting.pop()
            real = os.path.realpath(folder)
            if real in seen:  # a link to a folder already visited
                continue
            seen.add(real)
            below, files = self.value(folder, lambda folder=folder: _listing(folder, suffixes, names))
            yield folder, files
            waiting += [folder / name for name in reversed(below)]

    def save(self) -> None:
        """Write the used entries; without a writable folder, skip that."""
        if not self.keep:
            return
        if not self._changed and self._used.keys() == self._entries.keys():
            return
        for path in self.paths:
            try:
                content = {**_read(path), "format": FORMAT, self.kind: self._used}
                write_file(path, json.dumps(content, separators=(",", ":")))
                return
            except OSError:
                continue


def _read(path: Path) -> dict[str, Any]:
    """The content of an index file; empty if it is missing or unusable."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and content.get("format") == FORMAT else {}


def _listing(folder: Path, suffixes: frozenset[str], names: bool) -> list[Any]:
    """[names of its subfolders, names or number of its files], sorted by the numbers in the names."""
    folders, files = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if os.path.splitext(entry.name)[1].lower() in suffixes:  # noqa: PTH122, millions of them
                files.append(entry.name)
            elif entry.is_dir():
                folders.append(entry.name)
    return [sorted(folders, key=by_number), sorted(files, key=by_number) if names else len(files)]
