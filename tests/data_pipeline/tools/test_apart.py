"""The data tools do not write into the folder that they read."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from keep.utils.io import write_file
from keep.utils.pictures import encode_image


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        for t in range(2):
            write_file(tmp_path / f"truth/{name}/{t:08d}.png", encode_image(np.zeros((64, 64, 3), np.uint8), "png"))
    return tmp_path / "truth"


@pytest.mark.parametrize("inside", ["", "x", "x/y", "../truth", "a"])
@pytest.mark.parametrize(("tool", "flag"), [("splits", None), ("align", None), ("collect", None), ("prepare", "--out")])
def test_an_output_in_the_input_is_refused(truth: Path, tool: str, flag: str | None, inside: str, capsys) -> None:
    before = sorted(truth.parent.rglob("*"))
    words = [str(truth), *([flag] if flag else []), str(truth / inside)]
    assert importlib.import_module(f"keep.data.tools.{tool}").main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "choose another folder" in error
    assert sorted(truth.parent.rglob("*")) == before


def test_a_link_to_the_input_is_the_input(truth: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "link").symlink_to(truth)
    assert importlib.import_module("keep.data.tools.splits").main([str(truth), str(tmp_path / "link/out")]) == 2
    assert "is inside" in capsys.readouterr().err


def test_a_level_is_not_written_over_the_truth(truth: Path, tmp_path: Path, capsys) -> None:
    truth = truth.rename(tmp_path / "mild")
    assert importlib.import_module("keep.data.tools.splits").main([str(truth), str(tmp_path)]) == 2
    assert "is where the level mild would be written" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mild"]
