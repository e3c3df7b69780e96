"""PySceneDetect beside our own detector of cuts."""

import sys

import numpy as np
import pytest

from keep.faces.cuts import shot_finder
from keep.utils.errors import UserError


def two_shots():
    dark, bright = (np.full((n, 60, 100, 3), grey, np.uint8) for n, grey in ((26, 20), (30, 160)))
    clip = np.concatenate([dark, bright])
    clip[:, ::2, ::3] += 25
    return clip


@pytest.mark.parametrize("which", ["scenedetect", "builtin", "both"])
def test_the_cut_is_found(which):
    if which != "builtin":
        pytest.importorskip("scenedetect", reason="PySceneDetect is not installed")
    finder = shot_finder(which)(25.0)
    for t, frame in enumerate(two_shots()):
        finder.update(t, frame)
    assert finder.finish() == [26]


def test_without_scenedetect(monkeypatch):
    monkeypatch.setitem(sys.modules, "scenedetect", None)
    with pytest.raises(UserError, match=r"keep-vfsr\[collect\].*--shots builtin"):
        shot_finder("both")
