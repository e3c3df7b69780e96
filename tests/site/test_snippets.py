"""Every block of code in the documentation works: Python runs, commands are those that the programs accept."""

import argparse
import re
import runpy
import shutil
import sys
import tomllib
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from site_snippets import ROOT, Block, blocks, commands, module_and_arguments

from keep.config import reading
from keep.config import registry as keep_registry
from keep.config.schema import TestConfig, TrainConfig
from keep.utils.errors import UserError

SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
OTHERS = {"make", "pip", "git", "torchrun", "python", "bash", "sbatch", "tensorboard", "docker", "pre-commit", "ray"}
"""Programs of others."""


class Parsed(BaseException):
    """The command line was accepted; nothing else has run."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__()
        self.arguments = arguments


def parse(module: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """What a program makes of its arguments."""
    real = argparse.ArgumentParser.parse_args

    def parse_args(self: argparse.ArgumentParser, *given: Any) -> argparse.Namespace:
        raise Parsed(real(self, *given))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # runpy: the module is imported already
            runpy.run_module(module, run_name="__main__")
    except Parsed as parsed:
        return parsed.arguments
    except SystemExit as end:
        pytest.fail(f"{module} {' '.join(arguments)}: exit status {end.code}")
    raise AssertionError(f"{module} reads no command line")


def runs(words: list[str]) -> tuple[str, list[str]] | None:
    """The module of this repository that a command runs, and its arguments."""
    if words[0] in SCRIPTS:
        return SCRIPTS[words[0]].partition(":")[0], words[1:]
    found = module_and_arguments(words)
    return found if found and found[0].partition(".")[0] in ("keep", "scripts") else None


@pytest.mark.parametrize("block", blocks("sh", "bash", "shell"), ids=str)
def test_commands_are_accepted(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if block.reason:
        pytest.skip(block.reason)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in commands(block.code, tmp_path):
        found = runs(words)
        if found is None:
            assert words[0] in OTHERS, f"{block}: what is {words[0]}?"
            assert words[0] != "make" or words[1] in targets, words
            continue
        module, arguments = found
        for word in arguments:
            assert not word.startswith("options/") or (ROOT / word).exists(), f"{block}: there is no {word}"
        if "--help" in arguments or (module == "keep.app" and find_spec("gradio") is None):
            continue
        with monkeypatch.context() as patch:
            accepted = parse(module, arguments, patch)
        if module in ("keep.train", "keep.test") and (ROOT / str(accepted.opt)).is_file():
            try:
                reading.load(accepted.opt, accepted.set, TrainConfig if module == "keep.train" else TestConfig)
            except UserError as error:
                pytest.fail(f"{block}: {error}")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the blocks name."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "options", tmp_path / "options")
    return tmp_path


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registries of a new process: without the classes of plugins, and without a block's after it."""
    for registry in (r for r in vars(keep_registry).values() if isinstance(r, keep_registry.Registry)):
        own = {name: cls for name, cls in registry._classes.items() if cls.__module__.startswith("keep.")}
        monkeypatch.setattr(registry, "_classes", own)


@pytest.mark.usefixtures("workplace", "registries")
@pytest.mark.parametrize("block", blocks("python", "py"), ids=str)
def test_python_runs(block: Block) -> None:
    code = compile(block.code, str(block), "exec")
    if block.reason:
        pytest.skip(block.reason)
    rng = np.random.default_rng(0)
    exec(code, {"__name__": "snippet", "frames": rng.integers(0, 256, (2, 64, 64, 3), np.uint8)})
