"""PySceneDetect beside our own detector of cuts."""

import sys

import numpy as np
import pytest

from keep.data.video_io import probe, write_video
from keep.faces.cuts import shot_finder
from keep.utils.errors import UserError


def two_shots(path):
    dark, bright = (np.full((n, 60, 100, 3), grey, np.uint8) for n, grey in ((26, 20), (30, 160)))
    clip = np.concatenate([dark, bright])
    clip[:, ::2, ::3] += 25
    write_video(path, clip, 25)
    return clip, probe(path)


@pytest.mark.parametrize("which", ["scenedetect", "builtin", "both"])
def test_the_cut_is_found(tmp_path, which):
    if which != "builtin":
        pytest.importorskip("scenedetect", reason="PySceneDetect is not installed")
    clip, info = two_shots(tmp_path / "in.mp4")
    finder = shot_finder(which)(info)
    for t, frame in enumerate(clip):
        finder.update(t, frame)
    assert finder.finish() == [26]


def test_without_scenedetect(monkeypatch):
    monkeypatch.setitem(sys.modules, "scenedetect", None)
    with pytest.raises(UserError, match=r"keep-vfsr\[collect\].*--shots builtin"):
        shot_finder("both")
