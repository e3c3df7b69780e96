"""Console commands that hold several tools, such as ``keep-data align``. Only the tool that runs is imported."""

import importlib
import sys
from collections.abc import Mapping, Sequence

from keep.utils.errors import nearest
from keep.utils.starting import starting
from keep.utils.version import __version__

Tools = Mapping[str, tuple[str, str]]
"""Name of a tool → the module that holds its ``main(arguments)``, and one line about it."""


def run_tool(program: str, summary: str, tools: Tools, argv: Sequence[str] | None = None) -> int:
    """Run the tool that the first argument names, with the other arguments.

    Without arguments, or with ``--help``, list the tools instead.

    Returns:
        The exit status: that of the tool, or 2 for a tool that does not exist.
    """
    name, *arguments = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(_overview(program, summary, tools))
        return 0
    if name == "--version":
        print(f"keep-vfsr {__version__}")
        return 0
    if name not in tools:
        hint = nearest(name, tools) or f"; choose from {', '.join(tools)}"
        print(f"error: {program} has no tool {name!r}{hint}", file=sys.stderr)
        return 2
    with starting():
        module = importlib.import_module(tools[name][0])
    return module.main(arguments)


def _overview(program: str, summary: str, tools: Tools) -> str:
    width = max(map(len, tools))
    lines = [f"  {name:<{width}}  {line}" for name, (_, line) in tools.items()]
    return "\n".join(
        [f"usage: {program} TOOL …", "", summary, "", *lines, "", f"{program} TOOL --help lists a tool's options"]
    )
