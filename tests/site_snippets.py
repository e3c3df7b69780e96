"""Blocks of code in the documentation, and the commands in them."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md"), ROOT / "datasets/README.md"])
NOT_RUN = "not run:"
"""``<!-- not run: reason -->`` on the line before a block."""

_BLOCK = re.compile(r"(?:^<!-- (?P<mark>.*?) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)

_RECORD = r"""
command_not_found_handle() { { printf '%s\x1f' "$@"; printf '\x1e'; } >> "$RECORD"; }
cd() { :; }
source() { :; }
"""
"""Without programs to find, bash hands every command to this function."""


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        page: its page, from the root of the repository.
        line: line of its first line of code, from 1.
        language: the word after the fence.
        code: its text.
        reason: why it is not run; empty: it is.
    """

    page: str
    line: int
    language: str
    code: str
    reason: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    """The blocks of all pages in these languages."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in _BLOCK.finditer(text):
            if match["language"] in languages:
                line = text.count("\n", 0, match.start("code")) + 1
                mark = match["mark"] or ""
                reason = mark.removeprefix(NOT_RUN).strip() if mark.startswith(NOT_RUN) else ""
                found.append(Block(str(page.relative_to(ROOT)), line, match["language"], match["code"], reason))
    return found


def commands(code: str, folder: Path) -> list[list[str]]:
    """The words of every command that bash would run in a block, in order. No program is run.

    Args:
        code: the block.
        folder: an empty folder to run bash in.
    """
    record = folder / "commands"
    record.touch()
    done = subprocess.run(
        [shutil.which("bash") or "bash", "-c", _RECORD + code.replace(".venv/bin/", "")],
        cwd=folder, env={"PATH": "/nonexistent", "RECORD": str(record)}, capture_output=True, text=True,
    )  # fmt: skip
    assert not done.stderr, done.stderr
    return [line.split("\x1f")[:-1] for line in record.read_text().split("\x1e")[:-1]]


def module_and_arguments(words: list[str]) -> tuple[str, list[str]] | None:
    """The module that a command runs with ``-m``, and its arguments; None for other commands."""
    if words[0] not in ("python", "python3", "torchrun") or "-m" not in words:
        return None
    place = words.index("-m")
    return words[place + 1], words[place + 2 :]
