"""Stops a program that is still importing its parts: one line and an exit status, no traceback."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from keep.utils.signals import handled

INTERRUPTED = 130  # as a shell reports SIGINT
ENDING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def starting(status: int = INTERRUPTED, numbers: Sequence[signal.Signals] = ENDING) -> Iterator[None]:
    """Inside, these signals end the process at once. For imports: nothing has been written yet.

    An import that is interrupted by an exception may swallow it, or end in a traceback of its own.

    Args:
        status: exit status after a signal.
        numbers: the signals.
    """

    def stop(*_: Any) -> None:
        sys.stderr.write("stopped\n")
        sys.stderr.flush()
        os._exit(status)

    with handled(numbers, stop):
        yield
