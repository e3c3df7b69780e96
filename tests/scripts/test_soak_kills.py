"""scripts/soak/kills.py: what it reads from a run's folder; it detects a difference of one bit."""

import json
from pathlib import Path

import pytest
import torch

from keep.utils import weight_files
from scripts.soak.kills import resumed_at, soak
from scripts.soak.run_folder import check_checkpoints, last_step, records, unequal, unfinished


def test_the_last_complete_record_counts(tmp_path: Path) -> None:
    assert last_step(tmp_path) == 0
    (tmp_path / "log.jsonl").write_text('{"step": 7, "a": 1}\n{"step": 8, "a": 1}\n{"step": 9, "a"')
    assert last_step(tmp_path) == 8


def test_any_damaged_checkpoint_is_found(tmp_path: Path) -> None:
    content = {"step": 5, "recipe": {"w": torch.randn(2000)}}
    weight_files.save(tmp_path / "training_states/5.state", content)
    weight_files.save(tmp_path / "training_states/10.state", content)
    weight_files.save(tmp_path / "models/net_10.pth", content)
    assert check_checkpoints(tmp_path) == (10, "")
    intact = (tmp_path / "models/net_10.pth").read_bytes()
    (tmp_path / "models/net_10.pth").write_bytes(intact[:-100])
    assert check_checkpoints(tmp_path)[1].startswith("net_10.pth is damaged")
    (tmp_path / "models/.net_15.pth.abc").write_bytes(intact[:100])
    assert [p.name for p in unfinished(tmp_path)] == [".net_15.pth.abc"]


def test_one_bit_is_a_difference_and_its_path_is_reported() -> None:
    one = {"optimizers": {"net": {"state": [torch.zeros(3), (1, "x")]}}, "step": 5}
    other = {"optimizers": {"net": {"state": [torch.zeros(3), (1, "x")]}}, "step": 5}
    assert unequal(one, other) == []
    other["optimizers"]["net"]["state"][0][1] = -0.0  # equal as a number, not as bits
    assert unequal(one, other) == ["optimizers.net.state.0"]
    assert unequal(one, one | {"step": 6}) == ["step"]
    assert unequal({"a": torch.zeros(2)}, {"a": torch.zeros(2).double()}) == ["a"]
    assert unequal({"a": 1}, {"b": 1}) == [": different keys"]


def test_records_are_compared_without_their_times(tmp_path: Path) -> None:
    lines = [{"step": 1, "a": 1, "time/step": 0.1}, {"step": 1, "val/PSNR": 3}, {"step": 1, "val/PSNR": 3}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    assert records(tmp_path / "log.jsonl") == [{"step": 1, "a": 1, "val/PSNR": 3}]


def test_the_step_of_a_resumed_run_is_read_from_its_log() -> None:
    assert resumed_at("") is None
    assert resumed_at("killed: 1 M net parameters train, 1 clips a step, on cpu") == 0
    assert resumed_at("resumed runs/killed/training_states/25.state at step 25\nkilled: 1 clips a step") == 25


@pytest.mark.slow
def test_a_run_killed_three_times_ends_in_the_same_bits(tmp_path: Path) -> None:
    out = tmp_path / "soak.json"
    assert soak(["--kills", "3", "--seed", "1", "--work", str(tmp_path / "work"), "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["passed"]
    assert len(result["kills"]) == 3
