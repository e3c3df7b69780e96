"""Evidence and true errors of restored clips, as ``scripts/confidence.py`` collects them: what the error model learns
from."""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from keep.config.registry import DATASETS
from keep.utils.errors import UserError
from keep.utils.paths import expand
from keep.utils.ranges import Batch


def read_maps(path: Path) -> dict[str, Any]:
    """The maps of one clip.

    Returns:
        ``evidence`` (T, maps, b, b) and ``errors`` (T, targets, b, b), float32; ``names`` of the maps, ``name`` of the
        clip, and what else was written.

    Raises:
        UserError: not such a file, or a damaged one.
    """
    try:
        with np.load(path) as arrays:
            about = json.loads(str(arrays["about"]))
            return {**about, **{k: arrays[k].astype(np.float32) for k in ("evidence", "errors")}}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: no maps of a clip, or damaged: {error}; collect them again") from None


@DATASETS.register()
class EvidenceMaps(Dataset[dict[str, Any]]):
    """Frames of collected maps: ``lq`` is the evidence (frames, maps, b, b), ``gt`` the errors (frames, targets, b, b).

    Sample i is a function of (seed, i): each epoch visits every clip once, in a new order, and draws some of its
    frames.

    Args:
        root: folder of the maps.
        frames: frames of a sample.
        flip: mirror the maps left to right with probability .5.

    Raises:
        UserError: no maps under ``root``.
    """

    def __init__(self, root: Path, frames: Batch = 4, flip: bool = True) -> None:
        self.root, self.frames, self.flip = expand(root), frames, flip
        self.paths = sorted(self.root.rglob("*.npz"))
        if not self.paths:
            raise UserError(f"{root}: no maps of restored clips; collect them: python -m scripts.confidence")
        self.clips = [read_maps(path) for path in self.paths]  # some 100 kB a frame
        names = {tuple(clip["names"]) for clip in self.clips}
        if len(names) > 1:
            raise UserError(f"{root}: maps of different versions; remove them and collect them again")
        self.names = next(iter(names))

    def __len__(self) -> int:
        return len(self.clips)

    def digest(self) -> str:
        """A hash of the files' names and sizes."""
        facts = [(path.relative_to(self.root).as_posix(), path.stat().st_size) for path in self.paths]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        seed, position = key
        epoch, place = divmod(position, len(self.clips))
        clip = self.clips[int(np.random.default_rng([seed, epoch, 1]).permutation(len(self.clips))[place])]
        rng = np.random.default_rng([seed, position])
        chosen = rng.integers(len(clip["evidence"]), size=self.frames)
        lq, gt = (torch.from_numpy(clip[k][chosen]) for k in ("evidence", "errors"))
        if self.flip and rng.random() < 0.5:
            lq, gt = lq.flip(-1), gt.flip(-1)
        return {"lq": lq, "gt": gt, "name": clip["name"]}
