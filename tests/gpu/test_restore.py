"""The shipped network restores on any device, and in half precision, what it restores on the CPU."""

import gpu_runs
import pytest
import torch
from torch import Tensor

from scripts.gpu_kit.parity import drawn_clip, largest, psnr, restore

FRAMES = 4


@pytest.fixture(scope="module")
def expected() -> Tensor:
    """Of the plain network in float32 on the CPU."""
    return restore(drawn_clip(FRAMES), torch.device("cpu"), torch.float32, fast=False)[0]


def test_float32_without_tf32_is_exact(device, expected) -> None:
    assert largest(restore(drawn_clip(FRAMES), device, torch.float32)[0], expected) < 1e-3


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_half_precision_is_close(name, device, expected) -> None:
    gpu_runs.skip_without(device, "bf16" if name == "bfloat16" else "fp16")
    if name == "float16" and device.type == "cpu":
        pytest.skip("float16 is slow on a CPU, and nobody restores with it there")
    assert psnr(restore(drawn_clip(FRAMES), device, getattr(torch, name))[0], expected) >= 35
