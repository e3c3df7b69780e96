"""Each stage trains a few steps in every precision; what is frozen does not move."""

import gpu_runs
import pytest

PRECISIONS = ["float32", "bf16", pytest.param("fp16", marks=pytest.mark.slow)]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_stage_trains_its_parts_and_no_others(stage, precision, device, clips, tmp_path) -> None:
    gpu_runs.skip_without(device, precision)
    options = gpu_runs.config(
        stage, clips, tmp_path, device, f"train.amp={'null' if precision == 'float32' else precision}"
    )
    before = gpu_runs.start_of(options)
    records, after = gpu_runs.train(options)
    losses = gpu_runs.losses(records)
    assert len(losses) == gpu_runs.STEPS
    assert all(value is not None for row in losses for value in row.values())
    moved = gpu_runs.moved_parts(before, after)
    assert moved <= gpu_runs.TRAINED[stage]
    if precision == "fp16":  # its first steps may overflow, until the scale of the loss is low enough
        assert moved
    else:
        assert moved == gpu_runs.TRAINED[stage]
