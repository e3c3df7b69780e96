"""Types of numbers on command lines: ``parser.add_argument("--size", type=side)``. A wrong one is named with its range.

Only digits are numbers: no spaces, signs without digits, underscores, infinities or NaN.
"""

import argparse
import math
import re
from collections.abc import Callable

from keep.utils.errors import shortened
from keep.utils.ranges import LARGEST_SIDE

_WHOLE = re.compile(r"[-+]?\d{1,19}", re.ASCII)
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?", re.ASCII)


def whole(least: int, most: int) -> Callable[[str], int]:
    """A whole number from ``least`` to ``most``."""

    def read(text: str) -> int:
        if not _WHOLE.fullmatch(text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, not {shortened(text)}")
        return int(text)

    return read


def number(least: float, most: float, above: bool = False) -> Callable[[str], float]:
    """A number from ``least`` to ``most``; with ``above`` it must be more than ``least``."""

    def read(text: str) -> float:
        value = float(text) if len(text) <= 40 and _NUMBER.fullmatch(text) else math.nan
        if not least <= value <= most or (above and value == least):
            words = "above" if above else "from"
            raise argparse.ArgumentTypeError(f"must be a number {words} {least:g} to {most:g}, not {shortened(text)}")
        return value

    return read


count = whole(1, 10**9)
"""Steps, clips, frames: at least one."""
count_or_none = whole(0, 10**9)
"""The same; zero means none."""
side = whole(1, LARGEST_SIDE)
"""Side of an image in pixels."""
crf = whole(0, 51)
"""Quality of H.264 and H.265; lower is better."""
processes = whole(0, 1024)
"""Processes or threads; zero means none, or a choice of the library's."""
seed = whole(0, 2**63 - 1)
port = whole(1, 65535)
share = number(0, 1)
"""A share of a whole."""
sigma = number(0, 1000)
"""Standard deviation in frames or pixels; zero means none."""
pixels = number(0, LARGEST_SIDE)
"""A length in an image."""
