"""Stops a program that is still importing its parts: one line and an exit status, no traceback."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED, TERMINATED = 130, 143  # as a shell reports SIGINT and SIGTERM


@contextmanager
def starting(terminated: int = TERMINATED) -> Iterator[None]:
    """Inside, SIGINT and SIGTERM end the process at once. For imports: nothing has been written yet.

    An import that is interrupted by an exception may swallow it, or end in a traceback of its own.

    Args:
        terminated: exit status after SIGTERM.
    """

    def stop(number: int, _: FrameType | None) -> None:
        sys.stderr.write("stopped\n")
        sys.stderr.flush()
        os._exit(INTERRUPTED if number == signal.SIGINT else terminated)

    if threading.current_thread() is not threading.main_thread():  # Python runs signal handlers in no other
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
