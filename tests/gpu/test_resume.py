"""On one device, a resumed run ends in the weights of the uninterrupted one, bit for bit."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import gpu_runs
import pytest
import torch
from tiny_runs import same

from keep.training import trainer
from keep.utils import weight_files


@contextmanager
def deterministic() -> Iterator[list[str]]:
    """Only deterministic kernels; gives the operations that have none on this device."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    lacking: list[str] = []
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield lacking
        lacking += sorted({str(w.message).split()[0] for w in caught if "deterministic" in str(w.message)})
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


@pytest.mark.parametrize("stage", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_resumed_run_is_the_uninterrupted_one(stage, device, clips, tmp_path) -> None:
    more = ["log.save_interval=1", "log.keep_last=9"]
    options = gpu_runs.config(stage, clips, tmp_path, device, *more)
    with deterministic() as lacking:
        folder = trainer.train(options)
        uninterrupted = weight_files.load(folder / "training_states/3.state")
        trainer.train(options, str(folder / "training_states/1.state"))
    if lacking:
        pytest.skip(f"no deterministic kernels on {device}: {', '.join(lacking)}")
    resumed = weight_files.load(folder / "training_states/3.state")
    for key in ("recipe", "ema", "optimizers", "processes", "position"):
        assert same(uninterrupted[key], resumed[key]), key
