"""Stop requests of a scheduler or of a user: noted at once, obeyed between two steps."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

REQUEUE = 75
"""Exit status of a run that was asked to stop and has saved: EX_TEMPFAIL of sysexits.h, "start me again"."""

ECHO = 1.0
"""Seconds in which a second signal counts as the first: a scheduler may send to a process and to its group."""


class Stopped(Exception):  # noqa: N818, the run did as it was told
    """The run was asked to stop, and has saved its state."""


class StopRequest:
    """Notes SIGTERM, SIGINT and SIGUSR1 while it is entered; a second signal ends the process at once.

    Attributes:
        name: of the signal that came; "" before.
    """

    def __init__(self) -> None:
        self.name = ""
        self._came = 0.0
        self._before: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return bool(self.name)

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # Python gives signals to no other
            self._before = {s: signal.signal(s, self._note) for s in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if not self.name:
            self.name, self._came = signal.Signals(number).name, time.monotonic()
        elif time.monotonic() - self._came > ECHO:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


@contextmanager
def blocked() -> Iterator[None]:
    """Within, this thread and the processes it starts receive none of the signals: they wait."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore() -> None:
    """For data workers, started within :func:`blocked`: their parent decides when to stop, and needs their clips."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
