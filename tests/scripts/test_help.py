"""Every script answers ``--help`` and does nothing else."""

import runpy
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
NAMES = sorted(
    ".".join(p.relative_to(SCRIPTS).with_suffix("").parts)
    for p in SCRIPTS.rglob("*.py")
    if "__main__" in p.read_text(encoding="utf-8") and p.name != "machine.py"  # it takes no arguments
)


def test_the_scripts_are_found() -> None:
    assert {"demo", "demo_train", "bench.train", "soak.options", "memory", "make_splits"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_help_is_printed(name: str, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SCRIPTS / f"{name.replace('.', '/')}.py"), run_name="__main__")
    assert not end.value.code
    assert capsys.readouterr().out.startswith("usage: ")
    assert not list(tmp_path.iterdir())
