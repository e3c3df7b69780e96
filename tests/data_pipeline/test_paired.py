import json
from pathlib import Path

import numpy as np
import pytest

from keep.config.registry import DATASETS
from keep.data.paired import PairedClips
from keep.data.video_io import read_video, write_video
from keep.utils.errors import UserError


@pytest.fixture
def twins(clip_folder: Path, tmp_path: Path) -> Path:
    """The clips of ``clip_folder`` (12, 16 and 20 frames) at 12×12, lossless."""
    for path in sorted(clip_folder.rglob("*.mkv")):
        small = np.ascontiguousarray(read_video(path)[:, :48:4, :48:4])
        (tmp_path / path.relative_to(clip_folder)).parent.mkdir(exist_ok=True)
        write_video(tmp_path / path.relative_to(clip_folder), small, 25, codec="ffv1")
    return tmp_path


def paired(clip_folder: Path, lq: Path, **options) -> PairedClips:
    return PairedClips(DATASETS["VideoClips"](str(clip_folder), size=48, **options), str(lq))


def test_truth_and_twin_belong_together(clip_folder: Path, twins: Path) -> None:
    dataset = paired(clip_folder, twins)
    assert [c.name for c in dataset.clips] == ["a", "b", "sub/c"]
    for i, clip in enumerate(dataset.clips):
        sample = dataset[7, i]
        assert sample["name"] == clip.name
        assert sample["gt"].shape == (clip.frames, 3, 48, 48)
        expected = read_video(twins / f"{clip.name}.mkv")
        assert np.array_equal(sample["lq"].permute(0, 2, 3, 1).numpy(), expected)
        assert sample["degradation"] == "[]"


def test_max_frames_cuts_both(clip_folder: Path, twins: Path) -> None:
    sample = paired(clip_folder, twins, max_frames=5)[0, 1]
    assert len(sample["gt"]) == len(sample["lq"]) == 5


def test_the_manifest_tells_what_was_drawn(clip_folder: Path, twins: Path) -> None:
    drawn = [{"type": "GaussianBlur", "sigma": 3.5}]
    (twins / "manifest.json").write_text(json.dumps({"clips": {"b": {"degradation": drawn}}}))
    dataset = paired(clip_folder, twins)
    assert json.loads(dataset[0, 1]["degradation"]) == drawn
    assert dataset[0, 0]["degradation"] == "[]"


def test_what_does_not_fit_is_named(clip_folder: Path, twins: Path) -> None:
    with pytest.raises(UserError, match="no clip_length"):
        paired(clip_folder, twins, clip_length=3)
    write_video(twins / "a.mkv", np.zeros((11, 12, 12, 3), np.uint8), 25, codec="ffv1")
    with pytest.raises(UserError, match="clip a has 11 frames, its ground truth 12"):
        paired(clip_folder, twins)[0, 0]
    write_video(twins / "a.mkv", np.zeros((12, 13, 13, 3), np.uint8), 25, codec="ffv1")
    with pytest.raises(UserError, match="clip a is 13x13"):
        paired(clip_folder, twins)[0, 0]
    (twins / "a.mkv").unlink()
    with pytest.raises(UserError, match="no low-quality twin of 1 clips: a"):
        paired(clip_folder, twins)
    with pytest.raises(UserError, match="no such folder"):
        paired(clip_folder, twins / "nowhere")


def test_twins_of_another_size_are_refused(clip_folder: Path, twins: Path) -> None:
    """Low-quality frames of 12×12 from 96×96: an integer fraction of 48×48, too, but degraded twice as much."""
    (twins / "manifest.json").write_text(json.dumps({"size": 96, "clips": {}}))
    with pytest.raises(UserError, match=r"was made from frames of 96×96, but the size of gt is 48; set .* --size 48"):
        paired(clip_folder, twins)
    (twins / "manifest.json").write_text(json.dumps({"size": 48, "clips": {}}))
    assert len(paired(clip_folder, twins)) == 3
