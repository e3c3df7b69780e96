"""Restores clips once, and keeps the evidence and the true error of every block for the error model."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from keep.archs.confidence import TARGETS
from keep.archs.evidence import BLOCK, EVIDENCE, luma, to_blocks
from keep.archs.keep import KEEP
from keep.data.evidence import read_maps
from keep.data.frames import to_float, to_uint8
from keep.inference.streaming import Streamer
from keep.losses.perceptual import LPIPSDistance
from keep.utils.errors import UserError
from keep.utils.io import write_file
from keep.utils.progress import progress_bar

PARTS = ("train", "calibration")
CALIBRATION = 3
"""Every third person, by a hash of the name, is kept for calibration."""


def person_of(clip: str) -> str:
    """Who is in a clip, by its name: pieces of a video and pictures of a person differ in a number at the end."""
    return re.sub(r"[_-]?\d+$", "", clip)


def part_of(clip: str) -> str:
    """``train`` or ``calibration``; all clips of a person are in the same part."""
    digest = hashlib.sha256(person_of(clip).encode()).digest()
    return PARTS[digest[0] % CALIBRATION == 0]


def positions(dataset: Any, seed: int, count: int) -> Iterator[tuple[int, str]]:
    """``count`` positions of a training set and their parts. Folders of clips (the first part of a name) take turns
    as far as they last: there may be ten times as many photographs as videos."""
    taken: Counter[str] = Counter()
    position = 0
    while sum(taken.values()) < count:
        name = dataset.clip_at(seed, position).name
        group = "video" if "video" in name.split("/")[0] else "other"
        if taken[group] < (count + 1) // 2 or position >= 10 * count:
            taken[group] += 1
            yield position, part_of(name)
        position += 1


@torch.no_grad()
def block_errors(output: torch.Tensor, truth: torch.Tensor, distance: LPIPSDistance) -> torch.Tensor:
    """The true error of each block, of frames (N, 3, S, S) in [-1, 1], rounded to 8 bits: (N, targets, S/8, S/8)."""
    output, blocks = to_float(to_uint8(output)), output.shape[-1] // BLOCK
    grey = to_blocks((luma(output) - luma(truth)).abs() * 127.5, blocks)
    return torch.cat([grey, distance.blocks(output, truth, blocks)], dim=1)


@torch.no_grad()
def restore_clip(
    net: KEEP, distance: LPIPSDistance, sample: dict[str, Any], window: int = 8
) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    """Evidence (T, maps, b, b), true errors (T, targets, b, b) and ŷ (T, 3, S, S) of one clip of full-size frames."""
    device = net.codebook.embedding.weight.device
    lq, truth = (to_float(sample[k].to(device)) for k in ("lq", "gt"))
    if lq.shape != truth.shape:
        raise UserError(f"{sample['name']}: the low-quality frames must have full size: end with an Upsample")
    streamer = Streamer(net, evidence=True)
    frames = [frame for piece in lq.split(window) for frame in streamer.push(piece[None])]
    output = torch.cat([frame.output for frame in frames])
    evidence = torch.cat([frame.evidence for frame in frames if frame.evidence is not None])
    errors = torch.cat(
        [block_errors(a, b, distance) for a, b in zip(output.split(window), truth.split(window), strict=True)]
    )
    return evidence.cpu().numpy(), errors.cpu().numpy(), output.cpu()


class Collection:
    """The folder of the maps of one network. What was collected for other weights is removed.

    Args:
        net: the network.
        distance: measures the perceptual errors.
        folder: of the maps.
        network: a hash of the weights.
    """

    def __init__(self, net: KEEP, distance: LPIPSDistance, folder: Path, network: str) -> None:
        self.net, self.distance, self.folder = net, distance, folder
        self.key = hashlib.sha256(json.dumps([network, EVIDENCE, TARGETS]).encode()).hexdigest()
        for path in folder.rglob("*.npz"):
            if read_maps(path)["key"] != self.key:
                path.unlink()

    def add(self, dataset: Any, chosen: Sequence[tuple[int, str]], seed: int) -> None:
        """Restore ``dataset[seed, position]`` for each (position, part) into ``folder/part/POSITION.npz``; those that
        are there already are kept, so that an interrupted collection goes on."""
        for position, part in progress_bar(chosen, desc=f"restoring into {self.folder}", unit=" clips", mininterval=5):
            path = self.folder / part / f"{position:05d}.npz"
            if not path.exists():
                sample = dataset[seed, position]
                evidence, errors, _ = restore_clip(self.net, self.distance, sample)
                write_maps(path, evidence, errors, sample, self.key)


def write_maps(path: Path, evidence: np.ndarray, errors: np.ndarray, sample: dict[str, Any], key: str) -> None:
    """Write the maps of one clip."""
    about = {"name": sample["name"], "degradation": json.loads(sample.get("degradation") or "[]"), "key": key,
             "names": list(EVIDENCE), "targets": TARGETS}  # fmt: skip
    buffer = BytesIO()
    arrays = {"evidence": evidence.astype(np.float16), "errors": errors.astype(np.float16)}
    np.savez(buffer, allow_pickle=False, about=np.array(json.dumps(about)), **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, buffer.getvalue())
