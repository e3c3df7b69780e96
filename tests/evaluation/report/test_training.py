"""What a weight file tells of its training."""

from types import SimpleNamespace

import pytest
import torch

from keep import train as keep_train
from keep.evaluation.report.training import budget, training_of
from keep.evaluation.report.write import described


def test_files_of_a_run_tell_its_data_and_steps(tiny, clips, tmp_path):
    path, overrides = tiny(1, "data.clips_per_step=2")
    assert keep_train.main(["-opt", str(path), *(word for o in overrides for word in ("--set", o))]) == 0
    expected = f"VQGANModel, 4 steps × 2 clips × 1 frames of 32 px of {clips}"
    for suffix in ("pth", "safetensors"):
        file = tmp_path / f"experiments/stage1/models/net_latest.{suffix}"
        assert training_of(SimpleNamespace(files=(file,))) == expected


def test_mixtures_and_earlier_stages_are_named():
    parts = [{"root": "a"}, {"root": "b"}, {"root": "a"}]
    options = {
        "model": {"type": "KalmanModel"},
        "pretrained": {"vqgan": "one.pth", "keep": {"path": "two.pth"}},
        "data": {
            "clips_per_step": None, "batch_size": 3, "train": {"clip_length": 5, "size": 64, "datasets": parts},
        },
        "train": {"accumulate": 2},
    }  # fmt: skip
    expected = "KalmanModel, 7 steps × 6 clips × 5 frames of 64 px of a, b, from vqgan one.pth, keep two.pth"
    assert budget({"options": options, "step": 7}) == expected


def test_files_without_a_run_tell_nothing(tmp_path):
    torch.save({"params": {"a": torch.zeros(1)}}, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(b"no weights")
    assert training_of(SimpleNamespace(files=(tmp_path / "b.pth", tmp_path / "a.pth"))) == ""
    assert training_of(object()) == ""


@pytest.mark.parametrize(("future", "text"), [(None, "frames of future: the whole clip"), (2, "frames of future: 2")])
def test_the_report_names_the_future_a_row_needs(future, text):
    restorer = SimpleNamespace(describe=lambda: "Net", future_frames=future)
    assert described(restorer, "300 k steps") == f"Net; {text}; trained: 300 k steps"
