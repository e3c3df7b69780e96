"""scripts/train_stages.py: the commands that it runs, and how it stops."""

import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from keep.config import cli
from keep.utils.errors import UserError
from scripts import train_stages

NANO = Path(__file__).resolve().parents[2] / "options" / "nano"
FILES = [str(NANO / f"{name}.yml") for name in ("stage1", "stage2", "stage3")]


def test_options_go_to_all_files_or_to_one() -> None:
    args = train_stages.parse([*FILES, "--set", "root=x", "--set", "stage3:name=a:b", "--processes", "2"])
    for path in args.options:
        line = train_stages.command(args, path)
        assert line[line.index("-opt") + 1] == str(path)
        assert "--auto-resume" in line
        assert line[line.index("--nproc-per-node") + 1] == "2"
        given = [b for a, b in pairwise(line) if a == "--set"]
        assert given == (["root=x", "name=a:b"] if path.stem == "stage3" else ["root=x"])
    assert "torch.distributed.run" not in train_stages.command(train_stages.parse(FILES), args.options[0])


def test_nothing_runs_after_a_failure_or_a_stop(monkeypatch) -> None:
    ran, statuses = [], [0, 75]

    def train(line, end):
        ran.append(line[line.index("-opt") + 1])
        return statuses[len(ran) - 1]

    monkeypatch.setattr(train_stages, "run_until", train)
    assert train_stages.main(FILES) == 75
    assert ran == FILES[:2]


@pytest.mark.parametrize("status", [0, 2])
def test_the_exit_status_is_that_of_the_run(status: int) -> None:
    assert train_stages.run_until([sys.executable, "-c", f"raise SystemExit({status})"], None) == status


def test_a_run_is_stopped_after_the_minutes() -> None:
    start = time.monotonic()
    assert train_stages.run_until([sys.executable, "-c", "import signal; signal.pause()"], start + 0.2) == 75
    assert time.monotonic() - start < 30


def test_wrong_command_lines(tmp_path: Path, capsys) -> None:
    assert cli.run(train_stages.main, [str(tmp_path)]) == 2
    assert "no such options file" in capsys.readouterr().err
    with pytest.raises(UserError, match="--processes: must be a whole number from 1"):
        train_stages.parse([*FILES, "--processes", "0"])
    with pytest.raises(UserError, match="did you mean 'stage1'"):
        train_stages.parse([*FILES, "--set", "stag1:root=x"])
