"""Sample i of a run is a function of (seed, i) alone: compared as bytes over workers, ranks and a resume."""

import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import pytest

from keep.config.plugins import import_registered
from keep.config.registry import DATASETS
from keep.data.base import ClipDataset
from keep.data.clips import FrameFolders, VideoClips
from keep.data.sampler import make_loader
from keep.data.vfhq import VFHQ
from keep.degradation.blur import GaussianBlur
from keep.degradation.codec import VideoCodec
from keep.degradation.noise import GaussianNoise
from keep.degradation.resize import Downsample
from scripts.drawn_vfhq import draw_vfhq

COUNT, BATCH = 50, 2
STEPS = (
    GaussianBlur((1, 3), anisotropic=0.3),
    GaussianNoise(grey=0.5),
    Downsample(4, ("area", "bicubic")),
    GaussianNoise(),
    VideoCodec(),
)
OPTIONS: dict[str, Any] = {
    "clip_length": 3, "size": 32, "interval": (1, 2), "reverse": True, "flip": True, "tone_jitter": (0.2, 0.1),
    "degradation": STEPS,
}  # fmt: skip


@pytest.fixture(scope="module", params=["sound", "with bad clips", "aligned", "mixed"])
def dataset(request: pytest.FixtureRequest, clip_folder: Path, tmp_path_factory, texture) -> ClipDataset:
    """Three videos; or five folders of frames, two of which have an image that is none; or faces with landmarks;
    or videos and moving photographs, some of which are none."""
    if request.param == "sound":
        return VideoClips(str(clip_folder), **OPTIONS)
    root = tmp_path_factory.mktemp("frames")
    if request.param == "aligned":
        draw_vfhq(root, clips=3, frames=6, side=64)
        return VFHQ(str(root / "train"), landmarks=str(root / "landmarks"), **OPTIONS)
    if request.param == "mixed":
        for n in range(3):
            cv2.imwrite(str(root / f"{n}.png"), texture(1, seed=n)[0])
        (root / "3.png").write_text("no image")
        return mixed(clip_folder, root)
    for n in range(5):
        (root / f"c{n}").mkdir()
        for t, frame in enumerate(texture(6, seed=n)):
            cv2.imwrite(str(root / f"c{n}" / f"{t:05d}.png"), frame[..., ::-1])
    for n in (1, 3):
        (root / f"c{n}" / "00002.png").write_text("no image")
    return FrameFolders(str(root), on_bad="skip", **OPTIONS)


def mixed(videos: Path, photographs: Path) -> Any:
    own = {name: OPTIONS[name] for name in ("interval", "reverse", "flip", "tone_jitter")}
    step = {"type": "GaussianBlur", "sigma": [1, 3]}
    spec = {
        "type": "Mixed", "clip_length": 3, "size": 32, "weights": [3, 2],
        "degradation": [step, {"type": "Downsample"}, {"type": "VideoCodec"}],
        "datasets": [
            {"type": "VideoClips", "root": str(videos), **own},
            {"type": "ImageFolder", "root": str(photographs), "move_stills": True, "on_bad": "skip",
             "degradation": [{"type": "Downsample"}]},
        ],
    }  # fmt: skip
    import_registered()
    return DATASETS.spec(spec).build()


def hashes(loader: Any) -> list[str]:
    """Of every sample, in order: all its bytes and words."""
    found = []
    for batch in loader:
        for k in range(len(batch["name"])):
            words = [batch[name][k] for name in ("name", "degradation", "skipped") if name in batch]
            data = batch["gt"][k].numpy().tobytes() + batch["lq"][k].numpy().tobytes() + "|".join(words).encode()
            found.append(hashlib.sha256(data).hexdigest())
    return found


@pytest.fixture(scope="module")
def expected(dataset: ClipDataset) -> list[str]:
    found = hashes(make_loader(dataset, 5, BATCH, stop=COUNT // BATCH))
    assert len(found) == len(set(found)) == COUNT
    return found


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_do_not_matter(dataset: ClipDataset, expected: list[str], workers: int) -> None:
    assert hashes(make_loader(dataset, 5, BATCH, stop=COUNT // BATCH, workers=workers)) == expected


def test_ranks_do_not_matter(dataset: ClipDataset, expected: list[str]) -> None:
    ranks = [hashes(make_loader(dataset, 5, 1, stop=COUNT // 2, rank=r, world=2, workers=r)) for r in range(2)]
    assert [sample for pair in zip(*ranks, strict=True) for sample in pair] == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resume_does_not_matter(dataset: ClipDataset, expected: list[str], workers: int) -> None:
    start = 17
    rest = make_loader(dataset, 5, BATCH, start=start, stop=COUNT // BATCH, workers=workers)
    assert hashes(rest) == expected[start * BATCH :]


def test_seed_and_epoch_matter(dataset: ClipDataset, expected: list[str]) -> None:
    assert not set(hashes(make_loader(dataset, 6, BATCH, stop=5))) & set(expected)
    n = len(dataset)
    epochs = [set(expected[k : k + n]) for k in range(0, COUNT - n + 1, n)]
    assert all(not a & b for a, b in pairwise(epochs))
