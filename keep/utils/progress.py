"""Progress bars on a terminal; a line now and then in a log file."""

import sys
import time
from collections.abc import Callable, Iterable, Sized
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

T = TypeVar("T")

INTERVAL = 30.0
"""Seconds from one line in a log file to the next."""

LINE = "{desc}: {n_fmt} of {total_fmt}{unit} ({percentage:.0f} %), {elapsed} passed, {remaining} left{postfix}"
LINE_WITHOUT_TOTAL = "{desc}: {n_fmt}{unit}, {elapsed} passed{postfix}"


class LogLines:
    """What a bar writes, as one line every ``INTERVAL`` seconds; and its last state when it ends and stays.

    Args:
        stream: the log file, which is no terminal.
        clock: the time in seconds.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._due, self._state, self._shown = clock() + INTERVAL, "", ""
        self.encoding = getattr(stream, "encoding", "utf-8")

    def write(self, text: str) -> None:
        """A new state behind ``\\r``, or the end of the bar: ``\\n``."""
        if state := text.strip():
            self._state = state
        if self._state != self._shown and (text == "\n" or self._clock() >= self._due):
            self._stream.write(self._state + "\n")
            self._stream.flush()
            self._due, self._shown = self._clock() + INTERVAL, self._state

    def flush(self) -> None:
        """Nothing waits."""

    def isatty(self) -> bool:
        return False


def progress_bar(items: Iterable[T] | None = None, *, unit: str = "it", **options: Any) -> "tqdm[T]":
    """A bar of tqdm on standard error, with its options; lines (:class:`LogLines`) if that is no terminal."""
    if not sys.stderr.isatty():
        unit = f" {unit.strip()}"
        total = options.get("total") or (len(items) if isinstance(items, Sized) else None)
        options |= {"file": LogLines(sys.stderr), "bar_format": LINE if total else LINE_WITHOUT_TOTAL}
    return tqdm(items, unit=unit, **options)  # pyright: ignore[reportReturnType]
