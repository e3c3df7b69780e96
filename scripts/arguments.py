"""What the scripts' command lines share."""

import os
from pathlib import Path

from keep.cli import Parser, network
from keep.errors import UserError

__all__ = ["Parser", "check_output", "network"]


def check_output(folder: Path) -> None:
    """Raise UserError unless ``folder`` is there, or can be made, and can be written into. Nothing is made yet."""
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not there.is_dir():
        raise UserError(f"{folder}: cannot be the output folder: {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: cannot be the output folder: {there} cannot be written to")
