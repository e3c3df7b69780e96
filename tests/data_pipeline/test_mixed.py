"""Several datasets as one: shares, epochs, shared options, and mixtures that do not fit."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from keep.config.plugins import import_registered
from keep.config.registry import DATASETS
from keep.data.sampler import make_loader
from keep.utils.errors import UserError

STEP = {"type": "Downsample"}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory, texture) -> Path:
    root = tmp_path_factory.mktemp("photographs")
    for n in range(4):
        cv2.imwrite(str(root / f"p{n}.png"), texture(1, seed=n)[0])
    return root


def mixed(videos: Path, photographs: Path, first: Any = None, second: Any = None, **options: Any) -> Any:
    import_registered()
    datasets = [
        {"type": "VideoClips", "root": str(videos), **(first or {})},
        {"type": "ImageFolder", "root": str(photographs), "move_stills": True, **(second or {})},
    ]
    return DATASETS.spec({"type": "Mixed", "datasets": datasets, "clip_length": 2, "size": 32, **options}).build()


def test_every_round_holds_the_shares_and_every_dataset_its_epochs(clip_folder: Path, photographs: Path) -> None:
    dataset = mixed(clip_folder, photographs, weights=[3, 1])
    assert len(dataset) == sum(len(d) for d in dataset.datasets)
    located = [dataset.locate_sample(7, i) for i in range(48)]
    names = [dataset[7, i]["name"] for i in range(48)]
    for number, own in enumerate(dataset.datasets):
        weight = (3, 1)[number]
        mine = [i for i, (d, _, _) in enumerate(located) if d is own]
        assert all(len([i for i in mine if i // 4 == r]) == weight for r in range(12))
        assert [located[i][2] for i in mine] == list(range(12 * weight))  # as if it were alone
        for start in range(0, len(mine) - len(own) + 1, len(own)):
            assert {names[i] for i in mine[start : start + len(own)]} == {clip.name for clip in own.clips}
    assert len({i % 4 for i in mine}) > 1  # not always in one place of the four


def test_position_i_is_found_without_those_before_it(clip_folder: Path, photographs: Path) -> None:
    far = mixed(clip_folder, photographs, weights=[2, 3]).locate_sample(1, 10**12)
    dataset = mixed(clip_folder, photographs, weights=[2, 3])
    for i in (10**12 - 7, 3, 10**12 + 1):
        dataset.locate_sample(1, i)
    assert dataset.locate_sample(1, 10**12)[1:] == far[1:]


def test_degradation_is_shared_but_for_a_dataset_with_its_own(clip_folder: Path, photographs: Path) -> None:
    noise = {"type": "GaussianNoise", "sigma": [1, 5]}
    dataset = mixed(clip_folder, photographs, second={"degradation": [noise, STEP]}, degradation=[STEP])
    steps = {d.root: [type(s).__name__ for s in d.pipeline.steps] for d in dataset.datasets}
    assert steps == {clip_folder: ["Downsample"], photographs: ["GaussianNoise", "Downsample"]}
    batch = next(iter(make_loader(dataset, 0, 4, stop=1)))
    assert batch["lq"].shape == (4, 2, 3, 8, 8)


def test_datasets_do_not_draw_the_same_numbers(clip_folder: Path) -> None:
    noise = [{"type": "GaussianNoise", "sigma": [0, 50]}, STEP]
    dataset = mixed(clip_folder, clip_folder, second={"type": "VideoClips", "move_stills": False}, degradation=noise)
    drawn = [json.loads(dataset[0, i]["degradation"])[0]["sigma"] for i in range(20)]
    assert len(set(drawn)) == 20


def test_bad_clips_and_a_cache_belong_to_their_dataset(clip_folder: Path, photographs: Path, tmp_path: Path) -> None:
    (photographs / "broken.png").write_text("no image")
    try:
        cache = {"on_bad": "skip", "lq_cache": str(tmp_path)}
        dataset = mixed(clip_folder, photographs, second=cache, degradation=[STEP])
        for batch in islice(make_loader(dataset, 0, 4, stop=4), 4):
            assert len(batch["skipped"]) == 4
        skipped = [dataset[0, i]["skipped"] for i in range(12)]
        assert any("broken.png: not an image" in line for line in skipped)
        assert any(tmp_path.rglob("*.png"))
        again = mixed(clip_folder, photographs, second=cache, degradation=[STEP])
        assert all(torch.equal(again[0, i]["lq"], dataset[0, i]["lq"]) for i in range(12))
    finally:
        (photographs / "broken.png").unlink()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": [1]}, "Mixed: weights must be 2 whole numbers, one for each of the datasets"),
        ({"second": {"degradation": [STEP]}}, "some of the datasets have a degradation and some have none"),
        ({"first": {"size": 64}}, "Mixed: datasets.0.size is 64, but size of all is 32"),
        ({"first": {"clip_length": 5}}, "Mixed: datasets.0.clip_length is 5, but clip_length of all is 2"),
    ],
)
def test_mixtures_that_do_not_fit_are_refused_in_one_line(clip_folder, photographs, options, message) -> None:
    with pytest.raises(UserError) as error:
        mixed(clip_folder, photographs, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
