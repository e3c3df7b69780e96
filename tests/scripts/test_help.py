"""Every script answers ``--help`` and does nothing else."""

import runpy
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
NAMES = (
    "bench.data", "bench.detect", "bench.inference", "bench.restore", "bench.streaming", "bench.train", "soak.data",
    "soak.kills", "demo", "demo_train", "memory", "train_stages",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_help_is_printed(name: str, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SCRIPTS / f"{name.replace('.', '/')}.py"), run_name="__main__")
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: scripts.{name} ")
    assert not list(tmp_path.iterdir())
