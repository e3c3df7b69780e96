"""Test sets without ground truth: what restorers get, and what is refused."""

import cv2
import numpy as np
import pytest

from keep.data.clips import FrameFolders, ImageFolder, VideoClips
from keep.data.low_quality import LowQualityClips
from keep.utils.errors import UserError


@pytest.fixture
def root(tmp_path):
    """Two folders of three frames of 32×32; the second is brighter."""
    for clip in range(2):
        (tmp_path / f"clip{clip}").mkdir()
        for t in range(3):
            frame = np.full((32, 32, 3), 60 + 100 * clip + t, np.uint8)
            cv2.imwrite(str(tmp_path / f"clip{clip}/{t:05d}.png"), frame)
    return tmp_path


def test_restorers_get_the_reduced_frames_and_metrics_those_of_full_size(root):
    data = LowQualityClips(FrameFolders(root, size=32), scale=4)
    assert not data.has_truth
    assert [c.name for c in data.clips] == ["clip0", "clip1"]
    sample = data[0, 1]
    assert sample["gt"].shape == (3, 3, 32, 32)
    assert sample["lq"].shape == (3, 3, 8, 8)
    assert sample["lq"][2, 0, 0, 0] == 162
    assert [p.name for p in data.files(data.clips[0]) or ()] == ["00000.png", "00001.png", "00002.png"]


def test_images_are_clips_of_one_frame(root):
    data = LowQualityClips(ImageFolder(root, size=32), scale=1)
    assert len(data) == 6
    assert data[0, 0]["lq"].equal(data[0, 0]["gt"])


def test_a_part_of_long_clips(root):
    data = LowQualityClips(FrameFolders(root, size=32, max_frames=2))
    assert data.clips[0].frames == 2
    assert data[0, 0]["lq"].shape[0] == 2


def test_clips_that_are_cut_or_do_not_divide_are_refused(root, clips):
    with pytest.raises(UserError, match="no clip_length"):
        LowQualityClips(VideoClips(clips, size=32, clip_length=2))
    with pytest.raises(UserError, match="size 32 is no multiple of scale 5"):
        LowQualityClips(FrameFolders(root, size=32), scale=5)
