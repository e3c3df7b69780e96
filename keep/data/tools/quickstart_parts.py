"""The parts of ``keep-data quickstart``: who trains, validates and tests, and a packed file of each part."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keep.data.clips import VideoClips
from keep.data.packed import PackedClips, pack_clips
from keep.utils.errors import UserError

PARTS = ("train", "val", "test")
HELD_OUT = 10
"""One person in so many validates, and one tests; at least one each."""
WHOLE_FRAMES = 64
"""The most frames of a clip for validation and test."""
PIECE = 32
"""Training clips are cut into pieces of so many frames: an epoch then visits long clips more often."""


def hold_out(people: Sequence[str], folder: Path) -> dict[str, list[str]]:
    """Part → its people. The choice is random, and a function of the number of people alone.

    Raises:
        UserError: fewer people than parts.
    """
    if len(people) < len(PARTS):
        found = f"only {len(people)} give" if len(people) > 1 else "one gives" if people else "none gives"
        raise UserError(
            f"{folder}: too few people: {found} a clip, and {len(PARTS)} are needed, one each to train, validate and "
            "test (a person is a video, or a subfolder of videos); add videos and run the command again"
        )
    order = [people[int(i)] for i in np.random.default_rng(0).permutation(len(people))]
    n = max(1, round(len(people) / HELD_OUT))
    return {"train": sorted(order[2 * n :]), "val": sorted(order[n : 2 * n]), "test": sorted(order[:n])}


def pack_parts(
    parts: Mapping[str, Sequence[str]], people: Mapping[str, Sequence[str]], args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Write OUT/PART.zip of each part; returns a row about each."""
    rows = []
    for part, names in parts.items():
        clips = {clip for name in names for clip in people[name]}
        path = args.out / f"{part}.zip"
        most = args.max_frames if part == "train" else min(WHOLE_FRAMES, args.max_frames)
        dataset = VideoClips(str(args.out / "clips"), size=args.size, max_frames=most)
        dataset.clips = [clip for clip in dataset.clips if clip.name in clips]
        piece = PIECE if part == "train" else None
        pack_clips(dataset, path, codec="libx264", crf=8, keyint=8, piece=piece)
        packed = PackedClips(str(path)).clips
        shown = ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:3])}, …"
        rows.append(
            {
                "part": part, "people": len(names), "clips": len(packed), "frames": sum(c.frames for c in packed),
                "MB": path.stat().st_size / 1e6, "names": shown,
            }
        )  # fmt: skip
    return rows
