"""Stop requests by a scheduler or a user: recorded at once, handled between two steps."""

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

REQUEUE = 75
"""Exit status of a run that saved its state on a stop request: EX_TEMPFAIL of sysexits.h, "try again later"."""

ECHO = 1.0
"""Seconds in which a second signal counts as the same request: a scheduler may signal a process and its group."""


class Stopped(Exception):  # noqa: N818, not an error
    """The run saved its state and stopped on request."""


class StopRequest:
    """As a context manager, records SIGTERM, SIGINT and SIGUSR1; a second signal ends the process at once.

    Attributes:
        name: name of the signal received, or "".
    """

    def __init__(self) -> None:
        self.name = ""
        self._time = 0.0
        self._before: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return bool(self.name)

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # Python runs signal handlers in no other
            self._before = {s: signal.signal(s, self._record) for s in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _record(self, number: int, _frame: FrameType | None) -> None:
        if not self.name:
            self.name, self._time = signal.Signals(number).name, time.monotonic()
        elif time.monotonic() - self._time > ECHO:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


@contextmanager
def interrupted_by(numbers: Sequence[signal.Signals]) -> Iterator[None]:
    """Inside, these signals act like Ctrl-C: they raise KeyboardInterrupt in the main thread of this process."""
    own = os.getpid()

    def interrupt(number: int, _: FrameType | None) -> None:
        if os.getpid() == own:
            raise KeyboardInterrupt
        signal.signal(number, signal.SIG_DFL)  # a worker process that was forked
        os.kill(os.getpid(), number)

    if threading.current_thread() is not threading.main_thread():  # Python runs signal handlers in no other
        yield
        return
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def blocked() -> Iterator[None]:
    """Inside, the signals wait: neither this thread nor the processes it starts receive them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore() -> None:
    """For data workers started inside :func:`blocked`: the parent decides when to stop, and still needs their clips."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
