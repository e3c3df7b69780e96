"""scripts/bench/norm.py on the CPU, where only PyTorch's paths run."""

import json

import pytest

from keep.utils.errors import UserError
from scripts.bench import norm


def test_table(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(norm, "WARMUP", 1)
    norm.bench(["--size", "small", "--device", "cpu", "--rounds", "2", "--dtype", "float32", "--out", str(tmp_path)])
    rows = json.loads((tmp_path / "norm.json").read_text())["rows"]
    assert len(rows) == 6
    assert all(row["forward GB/s"] > 0 for row in rows)
    assert (tmp_path / "norm.md").read_text() == capsys.readouterr().out


def test_rounds_are_needed() -> None:
    with pytest.raises(UserError, match="must be a whole number from 1 to"):
        norm.bench(["--rounds", "0"])
