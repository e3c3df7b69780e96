"""Precision of a run."""

import pytest
import torch
import torch.nn as nn

from keep.config.schema import TrainOptions
from keep.training.precision import prepare_networks
from keep.training.schedules import Constant


@pytest.mark.parametrize(
    ("instructions", "amp", "warned"),
    [("AVX2", "bf16", True), ("AVX2", None, False), ("AVX512", "bf16", False), ("SVE256", "bf16", False)],
)
def test_bfloat16_that_a_processor_only_imitates_is_warned_of(
    monkeypatch, caplog: pytest.LogCaptureFixture, instructions: str, amp, warned: bool
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: instructions)
    with caplog.at_level("WARNING", "keep"):
        prepare_networks(
            nn.Linear(1, 1), TrainOptions(iters=1, schedule={"type": Constant.__name__}, amp=amp), torch.device("cpu")
        )
    assert ("set train.amp: null" in caplog.text) == warned
