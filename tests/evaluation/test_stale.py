"""Scores of an earlier run are reused only while the clips are the same."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from keep import test as keep_test
from keep.data.images import read_images
from keep.data.video_io import write_video
from keep.degradation.pipeline import Pipeline
from keep.evaluation import score

DEGRADATION = [{"type": "Downsample", "scale": 4}]
PLUGIN = """
import numpy as np
import torch
from keep.config.registry import DATASETS
from keep.data.base import SourceClip

@DATASETS.register()
class StaleTestOwn(torch.utils.data.Dataset):
    '''A dataset that lists its clips, but not their files.

    Args:
        root: an array of frames.
    '''
    def __init__(self, root: str) -> None:
        self.root = root
        self.clips = [SourceClip("a", 3, None)]
    def __len__(self):
        return 1
    def __getitem__(self, key):
        gt = torch.from_numpy(np.load(self.root))
        return {"gt": gt, "lq": gt[..., ::4, ::4], "name": "a"}
"""


def frames(seed: int, side: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (3, side, side, 3), dtype=np.uint8)


def write_frames(folder: Path, clip: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    before = folder.stat()
    for i, frame in enumerate(clip):
        cv2.imwrite(str(folder / f"{i}.png"), frame)
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))


class Kinds:
    """(folder, seed) → writes a clip; and the options of the dataset."""

    @staticmethod
    def video(root: Path, seed: int) -> dict:
        root.mkdir(exist_ok=True)
        write_video(root / "a.mkv", frames(seed), 25, "ffv1")
        return {"type": "VideoClips", "root": str(root), "size": 32, "degradation": DEGRADATION}

    @staticmethod
    def folder(root: Path, seed: int) -> dict:
        write_frames(root / "a", frames(seed))
        return {"type": "FrameFolders", "root": str(root), "size": 32, "degradation": DEGRADATION}

    @staticmethod
    def image(root: Path, seed: int) -> dict:
        write_frames(root, frames(seed))
        return {"type": "ImageFolder", "root": str(root), "size": 32, "degradation": DEGRADATION}

    @staticmethod
    def truth_of_pairs(root: Path, seed: int) -> dict:
        write_frames(root / "gt/a", frames(seed))
        write_frames(root / "lq/a", frames(9, 8))
        return {"type": "PairedClips", "gt": {"type": "FrameFolders", "root": str(root / "gt"), "size": 32},
                "lq": str(root / "lq")}  # fmt: skip

    @staticmethod
    def twin_of_pairs(root: Path, seed: int) -> dict:
        write_frames(root / "gt/a", frames(9))
        write_frames(root / "lq/a", frames(seed, 8))
        return {"type": "PairedClips", "gt": {"type": "FrameFolders", "root": str(root / "gt"), "size": 32},
                "lq": str(root / "lq")}  # fmt: skip

    @staticmethod
    def plugin(root: Path, seed: int) -> dict:
        root.mkdir(exist_ok=True)
        np.save(root / "a.npy", frames(seed).transpose(0, 3, 1, 2))
        return {"type": "StaleTestOwn", "root": str(root / "a.npy")}


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("plugin") / "own.py"
    path.write_text(PLUGIN)
    return path


@pytest.fixture
def psnr(tmp_path: Path, plugin: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., float]:
    """(dataset, **changes) → the PSNR that ``keep.test`` reports."""
    monkeypatch.chdir(tmp_path)

    def run(dataset: dict, **changes) -> float:
        content = {"name": "run", "threads": 1, "plugins": [str(plugin)], "data": {"test": dataset},
                   "restorers": {"bicubic": "Bicubic"}, "metrics": ["PSNR"], "save": {"clips": 0, "worst": 0},
                   **changes}  # fmt: skip
        Path("options.yml").write_text(yaml.safe_dump(content))
        assert keep_test.main(["-opt", "options.yml"]) == 0
        record = next((Path("results") / content["name"] / "clips/test").glob("*.json"))
        return json.loads(record.read_text())["restorers"]["bicubic"]["scores"]["PSNR"]

    return run


@pytest.mark.parametrize("kind", [name for name in vars(Kinds) if name[0] != "_"])
def test_a_clip_that_changed_under_its_name_is_scored_again(kind: str, psnr, tmp_path: Path) -> None:
    make = getattr(Kinds, kind)
    old = psnr(make(tmp_path / "data", 1))
    options = make(tmp_path / "data", 2)  # as many frames, of the same size and names
    assert psnr(options) == psnr(options, name="fresh") != old


def test_frames_that_did_not_change_are_not_scored_again(psnr, tmp_path: Path, monkeypatch) -> None:
    options = Kinds.plugin(tmp_path / "data", 1)
    old = psnr(options)
    monkeypatch.setattr(score, "score_clip", lambda *_: pytest.fail("scored again"))
    Kinds.plugin(tmp_path / "data", 1)  # a new file with the same frames
    assert psnr(options) == old


def test_by_content_a_copied_file_with_a_new_time_is_the_same_clip(psnr, tmp_path: Path, monkeypatch) -> None:
    options = Kinds.folder(tmp_path / "data", 1)
    old = psnr(options, by_content=True)
    for file in (tmp_path / "data").rglob("*.png"):
        os.utime(file, ns=(0, 10**9))
    monkeypatch.setattr(Pipeline, "replay", lambda *_: pytest.fail("scored again"))
    assert psnr(options, by_content=True) == old
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    write = read_images(sorted((tmp_path / "data/a").iterdir()))[::-1]
    write_frames(tmp_path / "data/a", np.ascontiguousarray(255 - write[..., ::-1]))
    assert psnr(options, by_content=True) != old


def test_the_times_say_how_many_clips_were_reused(psnr, tmp_path: Path) -> None:
    options = Kinds.image(tmp_path / "data", 1)  # three clips
    psnr(options)
    write_frames(tmp_path / "data", np.concatenate([frames(2)[:1], frames(1)[1:]]))
    for file in ("1.png", "2.png"):
        os.utime(tmp_path / "data" / file, ns=(0, 10**9))
    psnr(options)
    cv2.imwrite(str(tmp_path / "data/0.png"), frames(3)[0])
    psnr(options)
    lines = Path("results/run/seconds/times.md").read_text().splitlines()
    assert lines[0] == "1 of 3 clips were scored by the last run, 2 before or by other ranks."
