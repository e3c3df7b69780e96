"""Parts of a track, and the check that a clip shows one person."""

import re
import shlex
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from keep.data.timeline import VideoInfo
from keep.data.tools import collect
from keep.data.tools.collect_clips import cut_track, split_evenly
from keep.data.tools.collect_quality import is_one_person
from keep.data.tools.collect_source import Source
from keep.faces.align import TEMPLATE_512
from keep.faces.track import Track

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTED = [
    command
    for text in ((ROOT / "datasets/README.md").read_text(encoding="utf-8"), collect.__doc__ or "")
    for command in re.findall(r"keep-data collect (.*--min-face.*)", text)
]


@pytest.mark.parametrize(
    ("length", "low", "high", "parts"),
    [(99, 100, 300, [99]), (100, 100, 300, [100]), (300, 100, 300, [300]), (301, 100, 300, [151, 150]),
     (1000, 100, 300, [250] * 4), (25, 20, 20, [20]), (50, 20, 30, [25, 25])],
)  # fmt: skip
def test_split_evenly(length, low, high, parts):
    got = split_evenly(np.arange(length), low, high)
    assert [len(p) for p in got] == parts
    assert all((np.diff(p) == 1).all() for p in got)


def test_one_person():
    a, b = np.eye(4)[:2]
    assert is_one_person(np.stack([a, a, b, a]), "cosine"), "one odd view is forgiven"
    assert not is_one_person(np.stack([a, a, b, b, a]), "cosine")
    assert is_one_person(np.stack([a, a * 0.8]), "l2")
    assert not is_one_person(np.stack([a, a, b, b, a]), "l2")


@pytest.mark.parametrize("command", DOCUMENTED)
def test_the_documented_command_keeps_an_ordinary_face(command: str) -> None:
    """An aligned clip of 512×512: the box of its face is about 190 to 250 pixels wide (measured on ten clips)."""
    args = collect.parser().parse_args(shlex.split(command, comments=True))
    n = 120
    box = np.array([161, 120, 351, 400], np.float32)
    track = Track(0, 0, np.arange(n), np.tile(TEMPLATE_512.astype(np.float32), (n, 1, 1)), np.tile(box, (n, 1)),
                  np.full(n, 0.9, np.float32))  # fmt: skip
    source = Source(Path("a.mp4"), "a")
    assert len(cut_track(source, track, VideoInfo(n, 512, 512, Fraction(25)), args)) == 1
    assert not source.rejects


def test_both_documented_commands_are_checked() -> None:
    assert len(DOCUMENTED) == 2
