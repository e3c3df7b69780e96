"""keep/training/prefetch.py: batches on the device."""

import torch

from keep.training.prefetch import on_device


def batches(count: int):
    for i in range(count):
        yield {"gt": torch.full((1, 2, 3, 4, 4), i, dtype=torch.uint8), "name": [f"clip{i}"]}


def test_frames_become_floats_and_names_stay() -> None:
    (first, second) = on_device(batches(2), torch.device("cpu"), ahead=True)
    assert torch.equal(first["gt"], torch.full((1, 2, 3, 4, 4), -1.0))
    assert second["name"] == ["clip1"]
