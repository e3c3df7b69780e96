"""scripts/train_stages.py: which commands it runs, and how it stops."""

import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from keep import cli
from keep.errors import UserError
from scripts import train_stages as script

NANO = str(Path(__file__).resolve().parents[1] / "options" / "nano")


def test_options_go_to_all_stages_or_to_one() -> None:
    args = script.parse([NANO, "--set", "root=x", "--set", "3:model.temporal=null", "--processes", "2"])
    for stage in script.STAGES:
        line = script.command(args, stage)
        assert line[line.index("-opt") + 1].endswith(f"nano/stage{stage}.yml")
        assert "--auto-resume" in line
        assert line[line.index("--nproc-per-node") + 1] == "2"
        assert [b for a, b in pairwise(line) if a == "--set"] == [
            "root=x",
            *(["model.temporal=null"] if stage == 3 else []),
        ]
    assert "torch.distributed.run" not in script.command(script.parse([NANO]), 1)


def test_a_stage_that_fails_or_stops_is_the_last(monkeypatch) -> None:
    ran, statuses = [], [0, 75]

    def train(line, end):
        ran.append(line[line.index("-opt") + 1][-5])
        return statuses[len(ran) - 1]

    monkeypatch.setattr(script, "train", train)
    assert script.main([NANO]) == 75
    assert ran == ["1", "2"]


@pytest.mark.parametrize("status", [0, 2])
def test_the_status_is_that_of_the_stage(status: int) -> None:
    assert script.train([sys.executable, "-c", f"raise SystemExit({status})"], None) == status


def test_after_the_minutes_the_stage_is_asked_to_stop() -> None:
    start = time.monotonic()
    assert script.train([sys.executable, "-c", "import signal; signal.pause()"], start + 0.2) == 75
    assert time.monotonic() - start < 30


def test_wrong_command_lines(tmp_path: Path, capsys) -> None:
    assert cli.run(script.main, [str(tmp_path)]) == 2
    assert "has no stage1.yml" in capsys.readouterr().err
    with pytest.raises(UserError, match="--processes must be at least 1"):
        script.parse([NANO, "--processes", "0"])
