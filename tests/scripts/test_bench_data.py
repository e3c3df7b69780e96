"""scripts/bench/data.py: the plain implementation equals ours, and the tables are complete."""

from pathlib import Path

import pytest

from keep.config import cli
from scripts.bench import data


def test_plain_and_ours_agree_before_the_codec() -> None:
    import numpy as np

    clip = data.synthetic(2)
    pipeline = data.chain("PyAV")
    for seed in range(2):
        drawn = pipeline.draw(np.random.default_rng(seed))
        ours, plain = pipeline.before_codec(clip, drawn), data.plain_before_codec(clip, drawn, {})
        assert ours.shape == plain.shape == (2, 128, 128, 3)
        assert np.abs(ours.astype(float) - plain).mean() < 1


def test_every_implementation_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(data, "SIZE", 64)
    monkeypatch.setattr(data, "LENGTH", 2)
    assert cli.run(data.bench, ["--rounds", "1", "--out", str(tmp_path / "table.md")]) == 0
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert text == capsys.readouterr().out
    for word in ("ours", "plain, 21 taps", "blur and resize", "noise", "codec", "frames, PNG", "video, H.264"):
        assert word in text


def test_rounds_are_checked(capsys) -> None:
    assert cli.run(data.bench, ["--rounds", "0"]) == 2
    assert "--rounds" in capsys.readouterr().err
