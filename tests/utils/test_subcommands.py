"""Console commands that hold several tools: the list, the choice of a tool, the old names."""

import importlib.util
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from keep.data.tools.__main__ import TOOLS as DATA_TOOLS
from keep.data.tools.__main__ import main as keep_data
from keep.inference.__main__ import TOOLS as WEIGHT_TOOLS
from keep.inference.__main__ import main as keep_weights
from keep.utils.version import __version__

COMMANDS = {"keep-data": (keep_data, DATA_TOOLS), "keep-weights": (keep_weights, WEIGHT_TOOLS)}
ALIASES = {
    "align_faces": "keep-data align",
    "collect_wild": "keep-data collect",
    "convert_weights": "keep-weights convert",
    "make_splits": "keep-data splits",
    "pack_clips": "keep-data pack",
    "prepare_vfhq": "keep-data prepare",
    "preview_data": "keep-data preview",
}


@pytest.mark.parametrize("program", COMMANDS)
@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_tools_are_listed(program: str, arguments: list[str], capsys) -> None:
    main, tools = COMMANDS[program]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"usage: {program} TOOL …"
    for name, (module, summary) in tools.items():
        assert importlib.util.find_spec(module) is not None
        assert [line.split(maxsplit=1) for line in lines].count([name, summary]) == 1


@pytest.mark.parametrize("program", COMMANDS)
def test_they_have_a_version(program: str, capsys) -> None:
    assert COMMANDS[program][0](["--version"]) == 0
    assert capsys.readouterr().out == f"keep-vfsr {__version__}\n"


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("algin", "; did you mean 'align'?"),
        ("zzz", "; choose from quickstart, align, collect, prepare, pack, splits, preview"),
    ],
)
def test_an_unknown_tool_is_reported_in_one_line(argument: str, hint: str, capsys) -> None:
    assert keep_data([argument, "--help"]) == 2
    assert capsys.readouterr().err == f"error: keep-data has no tool {argument!r}{hint}\n"


def test_the_list_is_printed_without_heavy_imports() -> None:
    code = (
        "import sys; from keep.data.tools.__main__ import main as data; from keep.inference.__main__ import main;"
        "data([]); main([]); sys.exit(str([m for m in ('torch', 'cv2', 'numpy', 'pydantic') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.stderr == "[]\n"


@pytest.mark.parametrize(("alias", "command"), ALIASES.items())
def test_an_old_name_runs_the_tool(alias: str, command: str, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [f"{alias}.py", "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module(f"scripts.{alias}", run_name="__main__")
    assert end.value.code == 0
    printed = capsys.readouterr()
    assert printed.err == f"deprecated: scripts.{alias} is now {command}\n"
    assert printed.out.startswith(f"usage: {command} ")
