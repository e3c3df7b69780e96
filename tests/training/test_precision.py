"""Precision of a run."""

import pytest
import torch
import torch.nn as nn

from keep.config.schema import TrainOptions
from keep.training import optimizers  # noqa: F401  (registers the default)
from keep.training.precision import prepare_networks
from keep.training.schedules import Constant

CPU = torch.device("cpu")


def options(amp) -> TrainOptions:
    return TrainOptions(iters=1, schedule={"type": Constant.__name__}, amp=amp)


@pytest.mark.parametrize(
    ("instructions", "amp", "warned"),
    [
        ("AVX2", "bf16", True), ("AVX2", None, False), ("AVX512", "bf16", False), ("SVE256", "bf16", False),
        ("AVX2", "fp16", True), ("AVX512", "fp16", True),
    ],
)  # fmt: skip
def test_a_precision_that_is_slow_on_this_processor_is_warned_about(
    monkeypatch, caplog: pytest.LogCaptureFixture, instructions: str, amp, warned: bool
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: instructions)
    with caplog.at_level("WARNING", "keep"):
        prepare_networks(nn.Linear(1, 1), options(amp), CPU)
    assert ("set train.amp: null" in caplog.text) == warned
