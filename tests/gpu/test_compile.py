"""Compiled networks train as eager ones do."""

import gpu_runs
import pytest
import torch


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_compiled_and_eager_steps_have_the_same_losses(stage, device, clips, tmp_path) -> None:
    eager, _ = gpu_runs.train(gpu_runs.config(stage, clips, tmp_path / "eager", device))
    torch._dynamo.reset()
    compiled = gpu_runs.config(stage, clips, tmp_path / "compiled", device, f"train.compile={gpu_runs.COMPILED[stage]}")
    before = gpu_runs.start_of(compiled)
    records, after = gpu_runs.train(compiled)
    assert gpu_runs.moved_parts(before, after) == gpu_runs.TRAINED[stage]
    for ours, expected in zip(gpu_runs.losses(records), gpu_runs.losses(eager), strict=True):
        assert ours == pytest.approx(expected, rel=2e-3, abs=2e-4)
