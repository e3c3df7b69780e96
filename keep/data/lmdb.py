"""Clips in an LMDB of BasicSR: ``data.mdb`` with encoded images, ``meta_info.txt`` with their names."""

import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from keep.config.registry import DATASETS
from keep.data.base import ClipDataset, SourceClip
from keep.data.images import by_number, check_same_size, decode_image
from keep.utils.errors import UserError


@DATASETS.register()
class LMDBClips(ClipDataset):
    """Clips in an LMDB folder of BasicSR's layout. The package: ``pip install keep-vfsr[lmdb]``.

    A line of ``meta_info.txt`` is ``000/00000000.png (720,1280,3) 1``; the key is the name without its suffix. The part
    before its last slash is the name of the clip; a key without a slash is a clip of one frame.
    """

    expects = "expected a folder with data.mdb and meta_info.txt"

    def find(self) -> list[SourceClip]:
        _lmdb()
        data, meta = self.root / "data.mdb", self.root / "meta_info.txt"
        for path in (data, meta):
            if not path.is_file():
                raise UserError(f"{path}: no such file; {self.expects}")
        frames: dict[str, list[str]] = {}  # empty for a key without a slash
        for line in meta.read_text(encoding="utf-8").splitlines():
            if line.strip():
                key = os.path.splitext(line.split(" (")[0].strip())[0]  # noqa: PTH122, a key, not a path
                clip, _, frame = key.rpartition("/")
                frames.setdefault(clip or key, []).extend([frame] if clip else [])
        # One string with all frame names per clip: millions of small objects would be copied into every worker.
        return [
            SourceClip(name, len(keys) or 1, "\n".join(sorted(keys, key=by_number)))
            for name, keys in sorted(frames.items(), key=lambda item: by_number(item[0]))
        ]

    def read(self, clip: SourceClip, start: int, count: int, step: int) -> np.ndarray:
        names = clip.source.split("\n")[start : start + (count - 1) * step + 1 : step]
        keys = [f"{clip.name}/{name}" if name else clip.name for name in names]
        images: list[np.ndarray] = []
        with self._open() as environment, environment.begin(buffers=True) as transaction:
            for key in keys:
                data = transaction.get(key.encode())
                if data is None:
                    raise UserError(f"{self.root}: meta_info.txt names {key}, but data.mdb has no such key")
                images.append(decode_image(bytes(data), f"{self.root}: {key}"))
                check_same_size(images, f"{self.root}: {key}", keys[0])
        return np.stack(images)

    def files(self, clip: SourceClip) -> list[Path]:
        return [self.root / "data.mdb", self.root / "meta_info.txt"]

    def _open(self) -> Any:
        """Opened for each clip, which is fast: an open LMDB must not be shared across a fork."""
        lmdb = _lmdb()
        try:
            return lmdb.open(str(self.root), readonly=True, lock=False, readahead=False, meminit=False)
        except lmdb.Error as error:
            raise UserError(f"{self.root}: not an LMDB, or a damaged one: {error}") from None


def _lmdb() -> Any:
    try:
        return importlib.import_module("lmdb")
    except ImportError:
        raise UserError("LMDBClips needs lmdb: pip install keep-vfsr[lmdb]") from None
