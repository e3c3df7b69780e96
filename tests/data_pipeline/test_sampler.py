from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from keep.data.clips import VideoClips
from keep.data.sampler import PositionSampler, make_loader
from keep.degradation.codec import VideoCodec
from keep.degradation.noise import GaussianNoise
from keep.degradation.resize import Downsample
from keep.utils.errors import UserError


@pytest.fixture(scope="module")
def dataset(clip_folder: Path) -> VideoClips:
    steps = (Downsample(), GaussianNoise(), VideoCodec())
    return VideoClips(str(clip_folder), clip_length=3, size=32, reverse=True, flip=True, degradation=steps)


def samples(loader: Any) -> list[tuple]:
    """Each sample of each batch as bytes and strings, in order."""
    return [
        (batch["gt"][k].numpy().tobytes(), batch["lq"][k].numpy().tobytes(), batch["name"][k], batch["degradation"][k])
        for batch in loader
        for k in range(len(batch["name"]))
    ]


def test_batches_of_all_ranks_cover_each_position_once_in_order() -> None:
    ranks = [PositionSampler(9, 2, stop=3, rank=r, world=2) for r in range(2)]
    assert list(ranks[0]) == [[(9, 0), (9, 1)], [(9, 4), (9, 5)], [(9, 8), (9, 9)]]
    assert list(ranks[1]) == [[(9, 2), (9, 3)], [(9, 6), (9, 7)], [(9, 10), (9, 11)]]


def test_resume_is_one_integer() -> None:
    whole = list(PositionSampler(0, 3, stop=7))
    rest = PositionSampler(0, 3, start=4, stop=7)
    assert list(rest) == whole[4:]
    assert len(rest) == 3
    assert list(PositionSampler(0, 3, start=9, stop=7)) == []


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"batch_size": 1, "rank": 2, "world": 2}])
def test_bad_arguments_are_errors(options: dict[str, int]) -> None:
    with pytest.raises(UserError, match="sampler: batch_size"):
        PositionSampler(0, stop=1, **options)


def test_the_samples_do_not_depend_on_workers_ranks_or_resume(dataset: VideoClips) -> None:
    expected = samples(make_loader(dataset, 5, 2, stop=10))
    assert len(expected) == len(set(expected)) == 20
    assert samples(make_loader(dataset, 5, 2, stop=10, workers=2)) == expected
    assert samples(make_loader(dataset, 5, 2, start=6, stop=10, workers=1)) == expected[12:]
    ranks = [samples(make_loader(dataset, 5, 1, stop=10, rank=r, world=2)) for r in range(2)]
    assert [sample for pair in zip(*ranks, strict=True) for sample in pair] == expected
    assert samples(make_loader(dataset, 6, 2, stop=10)) != expected


def test_epochs_differ(dataset: VideoClips) -> None:
    drawn = samples(make_loader(dataset, 5, 3, stop=6))
    epochs = [drawn[k : k + 3] for k in range(0, 18, 3)]
    assert all({s[2] for s in epoch} == {"a", "b", "sub/c"} for epoch in epochs)
    assert all(a != b for a, b in pairwise(epochs))


def test_a_loader_can_be_read_twice_and_left_early(dataset: VideoClips) -> None:
    loader = make_loader(dataset, 5, 2, stop=3, workers=1)
    first = next(iter(loader))
    assert first["gt"].shape == (2, 3, 3, 32, 32)
    assert isinstance(first["name"], list)
    assert samples(loader) == samples(loader)


class Broken(Dataset[Any]):
    def __getitem__(self, key: tuple[int, int]) -> torch.Tensor:
        raise UserError(f"clip {key[1]}: truncated")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_user_error_arrives_as_its_one_line(workers: int) -> None:
    loader: Any = make_loader(Broken(), 0, 1, stop=1, workers=workers)
    with pytest.raises(UserError) as caught:
        next(iter(loader))
    assert str(caught.value) == "clip 0: truncated"
