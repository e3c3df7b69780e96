"""keep/training/prefetch.py: batches on the device."""

import pytest
import torch

from keep.training.prefetch import on_device, to_device

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def batches(count: int):
    for i in range(count):
        yield {"gt": torch.full((1, 2, 3, 4, 4), i, dtype=torch.uint8), "name": [f"clip{i}"]}


def test_frames_become_floats_and_names_stay() -> None:
    (first, second) = on_device(batches(2), torch.device("cpu"), ahead=True)
    assert torch.equal(first["gt"], torch.full((1, 2, 3, 4, 4), -1.0))
    assert second["name"] == ["clip1"]


@pytest.mark.gpu
@CUDA
def test_a_side_stream_gives_the_same_batches_and_raises_the_loader_s_errors() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    ahead = list(on_device(batches(5), device, ahead=True))
    for own, expected in zip(ahead, batches(5), strict=True):
        assert torch.equal(own["gt"], to_device(expected, device)["gt"])

    def broken():
        yield from batches(1)
        raise ValueError("no such clip")

    with pytest.raises(ValueError, match="no such clip"):
        list(on_device(broken(), device, ahead=True))
    stream = on_device(batches(100), device, ahead=True)
    next(stream)
    stream.close()  # a run that stops early leaves no thread behind
