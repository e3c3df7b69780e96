import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from keep.data.cache import LQCache, describe, difference
from keep.data.clips import FrameFolders, VideoClips
from keep.data.sampler import make_loader
from keep.degradation.blur import GaussianBlur
from keep.degradation.codec import VideoCodec
from keep.degradation.noise import GaussianNoise
from keep.degradation.pipeline import Pipeline
from keep.degradation.resize import Downsample
from keep.utils.errors import UserError

STEPS = (GaussianBlur((1, 2)), Downsample(), GaussianNoise(), VideoCodec())
OPTIONS: dict[str, Any] = {"clip_length": 3, "size": 32, "reverse": True, "flip": True, "degradation": STEPS}


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k] for k in {**a, **b})


@pytest.fixture
def no_more_degrading(monkeypatch: pytest.MonkeyPatch):
    def forbid() -> None:
        monkeypatch.setattr(Pipeline, "replay", lambda *_: pytest.fail("degraded again"))

    return forbid


def test_samples_are_those_without_a_cache_and_are_degraded_once(
    clip_folder: Path, tmp_path: Path, no_more_degrading
) -> None:
    plain = [VideoClips(str(clip_folder), **OPTIONS)[4, i] for i in range(6)]
    cached = VideoClips(str(clip_folder), **OPTIONS, lq_cache=str(tmp_path / "lq"), lq_cache_epochs=2)
    assert all(same(cached[4, i], plain[i]) for i in range(6))
    no_more_degrading()
    again = VideoClips(str(clip_folder), **OPTIONS, lq_cache=str(tmp_path / "lq"), lq_cache_epochs=2)
    assert all(same(again[4, i], plain[i]) for i in range(6))
    assert all(same(again[4, 6 + i], plain[i]) for i in range(6))  # two epochs, and then the same again


def test_workers_fill_it_together(clip_folder: Path, tmp_path: Path, no_more_degrading) -> None:
    dataset = VideoClips(str(clip_folder), **OPTIONS, lq_cache=str(tmp_path / "lq"), lq_cache_epochs=2)
    for _ in make_loader(dataset, 4, 2, stop=3, workers=2):
        pass
    assert len(list((tmp_path / "lq").rglob("*.png"))) == 6
    assert not list((tmp_path / "lq").rglob(".*"))
    no_more_degrading()
    assert [dataset[4, i]["lq"].shape for i in range(6)] == [(3, 3, 8, 8)] * 6


def test_whole_clips_are_kept_too(clip_folder: Path, tmp_path: Path, no_more_degrading) -> None:
    dataset = VideoClips(str(clip_folder), size=32, degradation=STEPS, lq_cache=str(tmp_path / "lq"))
    items = [dataset[0, i] for i in range(3)]
    no_more_degrading()
    assert all(same(dataset[0, i], items[i]) for i in range(3))
    assert [len(item["lq"]) for item in items] == [12, 16, 20]


@pytest.mark.parametrize(
    ("changed", "seed", "reason"),
    [
        ({}, 5, "seed is 4 in the cache, 5 now"),
        ({"size": 64}, 4, "size is 32 in the cache, 64 now"),
        ({"flip": False}, 4, "flip is true in the cache, false now"),
        ({"lq_cache_epochs": 2}, 4, "lq_cache_epochs is 1 in the cache, 2 now"),
        ({"degradation": (GaussianBlur((1, 3)), *STEPS[1:])}, 4, r"degradation\.0\.sigma\.1 is 2 in the cache, 3 now"),
        ({"degradation": STEPS[:3]}, 4, "degradation is "),
    ],
)
def test_a_stale_folder_is_refused(clip_folder: Path, tmp_path: Path, changed: dict, seed: int, reason: str) -> None:
    options = {**OPTIONS, "lq_cache": str(tmp_path / "lq")}
    VideoClips(str(clip_folder), **options)[4, 0]
    with pytest.raises(UserError, match=f"lq_cache: .*lq holds clips of other options: {reason}"):
        VideoClips(str(clip_folder), **{**options, **changed})[seed, 0]


def test_other_clips_are_refused(clip_folder: Path, tmp_path: Path) -> None:
    VideoClips(str(clip_folder / "a.mkv"), **OPTIONS, lq_cache=str(tmp_path / "lq"))[4, 0]
    with pytest.raises(UserError, match="clips is "):
        VideoClips(str(clip_folder / "b.mkv"), **OPTIONS, lq_cache=str(tmp_path / "lq"))[4, 0]


def test_a_replaced_clip_is_degraded_anew(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "frames/a"
    folder.mkdir(parents=True)
    samples = []
    for _ in range(2):  # the second time the same names, sizes and lengths: other pixels
        for i in range(3):
            cv2.imwrite(str(folder / f"{i}.png"), rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        cached = FrameFolders(str(tmp_path / "frames"), **OPTIONS, lq_cache=str(tmp_path / "lq"))
        samples.append(cached[4, 0])
        assert same(samples[-1], FrameFolders(str(tmp_path / "frames"), **OPTIONS)[4, 0])
    assert not torch.equal(samples[0]["lq"], samples[1]["lq"])


def test_keeping_damaged_clips_makes_no_other_cache(clip_folder: Path, tmp_path: Path) -> None:
    for on_bad in ("stop", "keep"):
        options: dict[str, Any] = {"lq_cache": str(tmp_path / "lq"), "degradation": STEPS, "on_bad": on_bad}
        assert VideoClips(str(clip_folder), size=48, **options)[0, 0]["lq"].shape[-1] == 12


def test_a_damaged_clip_is_made_anew(clip_folder: Path, tmp_path: Path) -> None:
    dataset = VideoClips(str(clip_folder), **OPTIONS, lq_cache=str(tmp_path / "lq"))
    expected = dataset[4, 0]
    (file,) = (tmp_path / "lq").rglob("*.png")
    for content in (b"", file.read_bytes()[:200]):
        file.write_bytes(content)
        assert same(dataset[4, 0], expected)


def test_it_needs_something_to_keep_and_a_place(clip_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lq_cache needs a degradation"):
        VideoClips(str(clip_folder), clip_length=3, lq_cache=str(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"lq_cache: .*file.*: cannot be used"):
        VideoClips(str(clip_folder), **OPTIONS, lq_cache=str(tmp_path / "file"))[0, 0]


def test_a_clip_survives_the_disk(tmp_path: Path) -> None:
    clip = np.random.default_rng(0).integers(0, 256, (5, 7, 9, 3), dtype=np.uint8)
    cache = LQCache(tmp_path, {})
    path = cache.path(3, "drawn", clip)
    assert cache.get(path, 5) is None
    cache.put(path, clip)
    assert np.array_equal(cache.get(path, 5), clip)  # pyright: ignore[reportArgumentType]
    assert cache.path(3, "otherwise drawn", clip) != path


def test_built_objects_are_described_by_their_options() -> None:
    about = describe(STEPS)
    assert about[0] == {"type": "GaussianBlur", "anisotropic": 0.0, "sigma": [1, 2], "sigma_at": None, "taps": None}
    assert about[3]["backend"] == {"type": "PyAV"}
    assert json.loads(json.dumps(about)) == about
    assert difference({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}) == "a.1.b is 2 in the cache, 3 now"
