from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from keep.data.clips import ImageFolder
from keep.data.stills import moving
from keep.flow.dis import DIS
from keep.utils.errors import UserError


@pytest.fixture
def photograph(texture) -> np.ndarray:
    return texture(1, 96, 96)[0]


def test_the_picture_moves_steadily(photograph: np.ndarray) -> None:
    clip = moving(photograph, np.random.default_rng(3), 5, step=2)
    assert clip.shape == (5, 96, 96, 3)
    frames = torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 127.5 - 1
    flow = DIS()(frames[1:], frames[:-1])[..., 24:-24, 24:-24]
    mean = flow.mean(dim=(2, 3))
    assert mean.norm(dim=1).min() > 0.3
    assert (mean - mean[0]).norm(dim=1).max() < 0.3
    assert mean.norm(dim=1).max() < 6


def test_a_larger_interval_moves_it_further(photograph: np.ndarray) -> None:
    one, three = (moving(photograph, np.random.default_rng(3), 3, step) for step in (1, 3))
    assert np.array_equal(one[1], three[1])  # the pose in the middle is the same
    change = [np.abs(np.diff(clip.astype(int), axis=0)).mean() for clip in (one, three)]
    assert change[1] > 1.5 * change[0]


def test_photographs_give_training_clips(tmp_path: Path, photograph: np.ndarray) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), photograph[..., ::-1])
    options = {"clip_length": 4, "size": 64, "interval": (1, 2), "reverse": True}
    with pytest.raises(UserError, match="clip a has 1 frames"):
        ImageFolder(str(tmp_path), **options)
    dataset = ImageFolder(str(tmp_path), **options, move_stills=True)
    item = dataset[0, 0]
    assert item["gt"].shape == (4, 3, 64, 64)
    assert torch.equal(item["gt"], dataset[0, 0]["gt"])
    assert not torch.equal(item["gt"], dataset[0, 1]["gt"])
    assert not torch.equal(item["gt"][0], item["gt"][3])


def test_single_frames_stay_as_they_are(tmp_path: Path, photograph: np.ndarray) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), photograph[..., ::-1])
    dataset = ImageFolder(str(tmp_path), clip_length=1, size=96, move_stills=True)
    assert np.array_equal(dataset[0, 0]["gt"][0].permute(1, 2, 0).numpy(), photograph)


def test_whole_clips_are_not_moved(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="move_stills and tone_jitter need a clip_length"):
        ImageFolder(str(tmp_path), move_stills=True)
