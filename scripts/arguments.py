"""What the scripts' command lines share."""

import argparse
import os
from pathlib import Path
from typing import Any, NoReturn

from keep.errors import UserError
from keep.registry import Registry


class Parser(argparse.ArgumentParser):
    """Tells a wrong command line in one line, as every other mistake is told."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def network(registry: Registry, text: str) -> Any:
    """The network that ``NAME`` or ``NAME=FILE`` names, FILE being its weights."""
    name, _, weights = text.partition("=")
    return registry[name](**({"weights": Path(weights)} if weights else {}))


def check_output(folder: Path) -> None:
    """Raise UserError unless ``folder`` is there, or can be made, and can be written into. Nothing is made yet."""
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not there.is_dir():
        raise UserError(f"{folder}: cannot be the output folder: {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: cannot be the output folder: {there} cannot be written to")
