"""scripts/bench/inference.py: its tables are complete."""

import json
from pathlib import Path

import pytest

from keep.utils.errors import UserError
from scripts.bench.inference import bench


def test_the_tables_are_printed_and_written(tmp_path: Path, capsys) -> None:
    bench(["--size", "small", "--rounds", "1", "--frames", "2", "--batches", "2", "--out", str(tmp_path)])
    captured = capsys.readouterr()
    assert captured.out == (tmp_path / "inference.md").read_text()
    tables = json.loads((tmp_path / "inference.json").read_text())["tables"]
    assert [row["path"] for row in tables["One frame, in alternating rounds"]][:2] == ["plain", "accelerated"]
    assert tables["Complete clips"][0]["clips"] == "batch of 2"
    assert "Convolutions of the plain path: float32" in captured.out
    assert "round 1/1" in captured.err
    for text in ("| plain |", "| accelerated |", "| E_L |", "| decoder |", "GFLOP/s", "PSNR", "100.00%"):
        assert text in captured.out


def test_a_clip_needs_a_second_frame() -> None:
    with pytest.raises(UserError, match="--frames"):
        bench(["--frames", "1"])
