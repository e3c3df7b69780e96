"""keep/training/prefetch.py: batches on the device, copied while a step computes."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from keep.training.prefetch import on_device, to_device


def batches(count: int) -> Iterator[dict[str, Any]]:
    for i in range(count):
        yield {"gt": torch.full((1, 2, 3, 4, 4), i, dtype=torch.uint8), "name": [f"clip{i}"]}


def test_batches_loaded_ahead_are_the_same(device) -> None:
    ahead = list(on_device(batches(5), device, ahead=True))
    for own, expected in zip(ahead, batches(5), strict=True):
        assert own["gt"].device.type == device.type
        assert torch.equal(own["gt"], to_device(expected, device)["gt"])
        assert own["name"] == expected["name"]


def test_the_loader_s_errors_are_raised(device) -> None:
    def broken() -> Iterator[dict[str, Any]]:
        yield from batches(1)
        raise ValueError("no such clip")

    with pytest.raises(ValueError, match="no such clip"):
        list(on_device(broken(), device, ahead=True))


def test_a_run_that_stops_early_leaves_no_thread(device) -> None:
    stream = on_device(batches(100), device, ahead=True)
    next(stream)
    stream.close()
    assert not [t for t in threading.enumerate() if t.name == "prefetch"]
