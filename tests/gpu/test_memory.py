"""A full GPU: one line that says what to change."""

import gpu_runs
import torch

from keep import train as keep_train
from keep.training import trainer


def test_out_of_memory_is_one_line(device, clips, tmp_path, monkeypatch, capsys) -> None:
    def step(*_: object) -> None:
        if device.type == "cpu":  # where another error is raised, and the kernel ends the process
            raise torch.OutOfMemoryError("no memory left")
        torch.empty(2**50, device=device)

    monkeypatch.setattr(trainer, "train_step", step)
    path, overrides = gpu_runs.words(2, clips, tmp_path, device)
    line = ["-opt", str(path), *(word for change in overrides for word in ("--set", change))]
    assert keep_train.main(line) == 2
    (error,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert error.startswith("error: step 1: out of memory on ")
    assert "train.amp: bf16" in error
    assert not list(tmp_path.rglob("stage2/**/*.state"))
