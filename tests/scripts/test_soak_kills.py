"""scripts/soak/kills.py: what it reads from a folder, and that it sees a difference of one bit."""

import json
from pathlib import Path

import pytest
import torch

from keep.utils import weight_files
from scripts.soak import kills as soak


def test_the_last_whole_record_counts(tmp_path: Path) -> None:
    assert soak.last_step(tmp_path) == 0
    (tmp_path / "log.jsonl").write_text('{"step": 7, "a": 1}\n{"step": 8, "a": 1}\n{"step": 9, "a"')
    assert soak.last_step(tmp_path) == 8


def test_a_damaged_checkpoint_is_seen_whichever_it_is(tmp_path: Path) -> None:
    content = {"step": 5, "recipe": {"w": torch.randn(2000)}}
    weight_files.save(tmp_path / "training_states/5.state", content)
    weight_files.save(tmp_path / "training_states/10.state", content)
    weight_files.save(tmp_path / "models/net_10.pth", content)
    assert soak.look(tmp_path) == (10, "")
    whole = (tmp_path / "models/net_10.pth").read_bytes()
    (tmp_path / "models/net_10.pth").write_bytes(whole[:-100])
    assert soak.look(tmp_path)[1].startswith("net_10.pth is not whole")
    (tmp_path / "models/.net_15.pth.abc").write_bytes(whole[:100])
    assert [p.name for p in soak.unfinished(tmp_path)] == [".net_15.pth.abc"]


def test_one_bit_is_a_difference_and_its_path_is_told() -> None:
    one = {"optimizers": {"net": {"state": [torch.zeros(3), (1, "x")]}}, "step": 5}
    other = {"optimizers": {"net": {"state": [torch.zeros(3), (1, "x")]}}, "step": 5}
    assert soak.unequal(one, other) == []
    other["optimizers"]["net"]["state"][0][1] = -0.0  # equal as a number, not as bits
    assert soak.unequal(one, other) == ["optimizers.net.state.0"]
    assert soak.unequal(one, one | {"step": 6}) == ["step"]
    assert soak.unequal({"a": torch.zeros(2)}, {"a": torch.zeros(2).double()}) == ["a"]
    assert soak.unequal({"a": 1}, {"b": 1}) == [": other keys"]


def test_records_are_compared_without_their_times(tmp_path: Path) -> None:
    lines = [{"step": 1, "a": 1, "time/step": 0.1}, {"step": 1, "val/PSNR": 3}, {"step": 1, "val/PSNR": 3}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    assert soak.records(tmp_path / "log.jsonl") == [{"step": 1, "a": 1, "val/PSNR": 3}]


def test_what_the_run_said_of_its_start() -> None:
    assert soak.resumed_at("") is None
    assert soak.resumed_at("killed: 1 M net parameters train, 1 clips a step, on cpu") == 0
    assert soak.resumed_at("resumed runs/killed/training_states/25.state at step 25\nkilled: 1 clips a step") == 25


@pytest.mark.slow
def test_a_run_killed_three_times_ends_in_the_same_bits(tmp_path: Path) -> None:
    out = tmp_path / "soak.json"
    assert soak.soak(["--kills", "3", "--seed", "1", "--work", str(tmp_path / "work"), "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["passed"]
    assert len(result["kills"]) == 3
