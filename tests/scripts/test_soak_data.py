"""scripts/soak/data.py: it measures a real worker and detects growth."""

import sys

import pytest

from keep.config import cli
from scripts.soak import data

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def options(path, overrides: list[str]) -> list[str]:
    return ["-opt", str(path), *(a for o in overrides for a in ("--set", o))]


@linux
def test_a_real_worker_is_watched(tiny, capsys) -> None:
    assert cli.run(data.soak, [*options(*tiny(1)), "--clips", "20", "--limit", "50"]) == 0
    assert "of the second tenth" in capsys.readouterr().out


@linux
def test_growth_is_a_failure(tiny, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "watch", lambda dataset, seed, clips: [100.0 + i for i in range(clips)])
    assert cli.run(data.soak, [*options(*tiny(1)), "--clips", "100"]) == 1
    assert "+67.2 %" in capsys.readouterr().out
