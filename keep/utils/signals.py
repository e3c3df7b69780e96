"""Stop requests by a scheduler or a user: recorded at once, handled between two steps."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

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

    def __bool__(self) -> bool:
        return bool(self.name)

    def __enter__(self) -> "StopRequest":
        self._handled = handled(SIGNALS, self._record)
        self._handled.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._handled.__exit__(None, None, None)

    def _record(self, number: int, _frame: FrameType | None) -> None:
        if not self.name:
            self.name, self._time = signal.Signals(number).name, time.monotonic()
        elif time.monotonic() - self._time > ECHO:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


@contextmanager
def handled(numbers: Sequence[signal.Signals], handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Inside, ``handler`` gets these signals. Nothing changes in other threads than the main one: Python runs signal
    handlers in no other."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in numbers} if main else {}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@contextmanager
def interrupted_by(numbers: Sequence[signal.Signals]) -> Iterator[None]:
    """Inside, these signals act like Ctrl-C: they raise KeyboardInterrupt in the main thread of this process."""
    own = os.getpid()

    def interrupt(number: int, _: FrameType | None) -> None:
        if os.getpid() == own:
            raise KeyboardInterrupt
        signal.signal(number, signal.SIG_DFL)  # a worker process that was forked
        os.kill(os.getpid(), number)

    with handled(numbers, interrupt):
        yield


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
