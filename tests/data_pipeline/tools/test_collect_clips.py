"""Parts of a track, and the check that a clip shows one person."""

import numpy as np
import pytest

from keep.data.tools.collect_clips import split_evenly
from keep.data.tools.collect_quality import is_one_person


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
