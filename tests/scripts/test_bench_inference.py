"""scripts/bench/inference.py: its tables are complete."""

from pathlib import Path

import pytest

from keep.utils.errors import UserError
from scripts.bench.inference import bench


def test_the_tables_are_printed_and_written(tmp_path: Path, capsys) -> None:
    out = tmp_path / "table.md"
    bench(["--size", "small", "--rounds", "1", "--frames", "2", "--out", str(out)])
    captured = capsys.readouterr()
    assert captured.out == out.read_text()
    assert "round 1/1" in captured.err
    for text in ("| plain |", "| accelerated |", "| E_L |", "| decoder |", "GFLOP/s", "PSNR", "100.00%"):
        assert text in captured.out


def test_a_clip_needs_a_second_frame() -> None:
    with pytest.raises(UserError, match="--frames"):
        bench(["--frames", "1"])
