"""Numbers on command lines: their ranges, in every command."""

import argparse
import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from keep.config import arguments
from keep.config.cli import run

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("text", ["0", "-1", "10001", "1.5", "1e3", "", " 5", "5 ", "1_000", "٣", "five", "9" * 5000])
def test_a_whole_number_out_of_its_range_is_named(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"must be a whole number from 1 to 10000, not") as refused:
        arguments.whole(1, 10_000)(text)
    assert len(str(refused.value)) < 150


@pytest.mark.parametrize("text", ["-0.1", "1.1", "nan", "inf", "-inf", "1e999", "", " .5", "1_0", "half", "9" * 5000])
def test_so_is_another_number(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"must be a number from 0 to 1, not") as refused:
        arguments.share(text)
    assert len(str(refused.value)) < 150


def test_both_ends_belong_to_a_range_and_the_lower_one_only_where_it_says_so() -> None:
    assert [arguments.crf(t) for t in ("0", "51", "+7", "007")] == [0, 51, 7, 7]
    assert [arguments.share(t) for t in ("0", "1", ".5", "5e-1", "1.")] == [0, 1, 0.5, 0.5, 1]
    above = arguments.number(0, 8, above=True)
    assert above("8") == 8
    with pytest.raises(argparse.ArgumentTypeError, match="must be a number above 0 to 8, not '0'"):
        above("0")


def test_no_command_line_takes_numbers_without_a_range() -> None:
    files = [p for folder in ("keep", "scripts") for p in (ROOT / folder).rglob("*.py")]
    calls = [c for p in files for c in re.findall(r"add_argument\([^\n]*(?:\n[^\n]*)?", p.read_text(encoding="utf-8"))]
    assert len(calls) > 100
    assert [c for c in calls if re.search(r"type=(int|float)\b", c) and "choices=" not in c] == []


TOOLS: dict[str, tuple[str, list[str], dict[str, list[str]]]] = {
    "align": ("keep.data.tools.align", ["{in}", "{out}"], {
        "--size": ["0", "-1", "2147483648"], "--largest": ["0", "-1", "nan"], "--crf": ["-1", "52"],
        "--min-frames": ["0", "-5"],
    }),
    "collect": ("keep.data.tools.collect", ["{in}", "{out}"], {
        "--size": ["0", "2147483648"], "--crf": ["-1", "52"], "--every": ["0"], "--longest-side": ["0"],
        "--min-length": ["0"], "--max-length": ["-1"], "--max-clips": ["-1"], "--gap": ["-1"],
        "--min-face": ["-1", "inf"], "--min-score": ["2"], "--min-sharpness": ["-1"], "--max-outside": ["-0.5", "7"],
        "--sigma": ["-1", "nan"], "--val": ["-1"],
    }),
    "pack": ("keep.data.tools.pack", ["{in}", "{out}.zip"], {
        "--size": ["0", "-1"], "--crf": ["-1", "52"], "--keyint": ["0"], "--max-frames": ["0", "-1"], "--piece": ["0"],
    }),
    "prepare": ("keep.data.tools.prepare", ["{in}"], {"--size": ["0", "-2"], "--workers": ["-1", "100000"]}),
    "preview": ("keep.data.tools.preview", ["-opt", "x.yml"], {"--clips": ["0"], "--first": ["-1"], "--timed": ["-1"]}),
    "splits": ("keep.data.tools.splits", ["{in}", "{out}"], {
        "--seed": ["-1", "9" * 30], "--size": ["0", "-1"], "--max-frames": ["0", "-1"],
    }),
    "test": ("keep.test", ["-opt", "x.yml"], {"--num": ["0", "-1", "x"]}),
    "app": ("keep.app", [], {"--port": ["0", "-1", "65536"]}),
    "restore": ("keep.restore", ["{in}", "-o", "{out}.mp4"], {
        "--threads": ["-1"], "--window": ["0"], "--batch": ["0", "-1"], "--fidelity": ["-1", "2", "nan"],
        "--crf": ["-1", "52"], "--fps": ["0", "-1", "inf"], "--scale": ["0", "9"], "--sigma": ["-1"],
        "--radius": ["-1"], "--max-gap": ["-1"], "--min-face": ["-1"], "--min-frames": ["-1"],
    }),
    "soak.data": ("scripts.soak.data", ["-opt", "x.yml"], {"--clips": ["9", "0"], "--limit": ["-1"]}),
    "soak.kills": ("scripts.soak.kills", [], {"--kills": ["0", "-1"], "--iters": ["1"], "--seed": ["-1"]}),
    "stages": ("scripts.train_stages", ["{in}"], {"--processes": ["0", "-1"], "--minutes": ["0", "-1", "nan"]}),
    "memory": ("scripts.memory", [], {"--clips": ["0"], "--frames": ["-1"]}),
    "bench.inference": ("scripts.bench.inference", [], {
        "--frames": ["0", "1"], "--batch": ["0"], "--rounds": ["0"], "--threads": ["-1"],
    }),
    "bench.streaming": ("scripts.bench.streaming", ["x.mp4", "-w", "nano"], {"--frames": ["0"]}),
    "bench.data": ("scripts.bench.data", [], {"--rounds": ["0"]}),
    "bench.restore": ("scripts.bench.restore", [], {"--frames": ["0"], "--lengths": ["-1"]}),
    "bench.train": ("scripts.bench.train", [], {
        "--image-size": ["0"], "--frames": ["0"], "--batch": ["0"], "--rounds": ["0"], "--warmup": ["-1"],
        "--threads": ["-1"], "--data-steps": ["-1"],
    }),
}  # fmt: skip


@pytest.mark.parametrize(
    ("tool", "flag", "value"),
    [
        (tool, flag, value)
        for tool, (_, _, flags) in TOOLS.items()
        for flag, values in flags.items()
        for value in values
    ],
)
def test_values_that_make_no_sense_are_refused(tool: str, flag: str, value: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "in").mkdir()
    name, words, _ = TOOLS[tool]
    module = importlib.import_module(name)
    words = [w.format(**{"in": tmp_path / "in", "out": tmp_path / "out"}) for w in words]
    assert status(module, [*words, f"{flag}={value}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: argument {flag}: must be a ")
    assert error.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def status(module: Any, words: list[str]) -> int:
    """The exit status of a command: its ``main`` as it is, or a script's parser under :func:`run`."""
    if module.__name__.startswith("keep."):
        return module.main(words)
    parse = getattr(module, "parse", None) or getattr(module, "bench", None) or module.soak
    return run(parse, words)
