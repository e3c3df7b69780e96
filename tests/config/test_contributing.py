"""The examples of CONTRIBUTING.md work as they stand there."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import options, options_and_start

from keep import train as keep_train
from keep.config.reading import load
from keep.config.schema import TrainConfig

ROOT = Path(__file__).resolve().parents[2]


def write_example(title: str, folder: Path) -> Path:
    """Write the plugin and the options file of one section into ``folder``; returns the options file."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = re.split(r"^##+ ", text.split(f"### {title}\n", 1)[1], maxsplit=1, flags=re.M)[0]
    code, options = (re.search(rf"```{kind}\n(.*?)```", section, re.S) for kind in ("python", "yaml"))
    assert code is not None
    assert options is not None
    plugin = re.search(r"plugins: \[(\w+\.py)\]", options[1])
    assert plugin is not None
    (folder / plugin[1]).write_text(code[1], encoding="utf-8")
    path = folder / "run.yml"
    path.write_text(options[1], encoding="utf-8")
    return path


def settings(overrides: list[str]) -> list[str]:
    return [x for override in overrides for x in ("--set", override)]


@pytest.mark.parametrize("title", ["A loss", "A metric", "An optimizer", "An arch"])
def test_an_example_is_valid(title: str, tmp_path: Path) -> None:
    config = load(write_example(title, tmp_path), [], TrainConfig)
    assert config.name.startswith("stage3_")


def test_the_dataset_trains(clips: Path, tmp_path: Path) -> None:
    path = write_example("A dataset", tmp_path)
    (tmp_path / "npz").mkdir()
    for n in range(2):
        frames = np.random.default_rng(n).integers(0, 256, (4, 40, 48, 3), dtype=np.uint8)
        np.savez(tmp_path / "npz" / f"clip{n}.npz", frames=frames)
    _, overrides = options(1, tmp_path / "npz", tmp_path / "experiments")
    assert keep_train.main(["-opt", str(path), *settings([*overrides, "train.iters=2"])]) == 0
    dataset = load(path, overrides, TrainConfig).data.train.build()
    assert [c.name for c in dataset.clips] == ["clip0", "clip1"]
    assert dataset[0, 0]["gt"].shape == (1, 3, 32, 32)


def test_the_degradation_trains(clips: Path, tmp_path: Path) -> None:
    path = write_example("A degradation", tmp_path)
    _, overrides = options_and_start(2, clips, tmp_path / "experiments")
    assert keep_train.main(["-opt", str(path), *settings([*overrides, "train.iters=2"])]) == 0
    sample = load(path, overrides, TrainConfig).data.train.build()[0, 0]
    drawn = json.loads(sample["degradation"])
    assert [step["type"] for step in drawn] == [
        "Darken", "GaussianBlur", "Downsample", "GaussianNoise", "VideoCodec"
    ]  # fmt: skip
    assert 0.3 <= drawn[0]["factor"] <= 1
    assert drawn[1]["sigma"] <= 10 * 32 / 512
    assert sample["lq"].float().mean() < sample["gt"].float().mean()
