"""Data workers that the system ended: one line instead of the loader's traceback."""

import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

from keep.utils.errors import UserError

ENDED = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: (\w[\w ]*)|exited unexpectedly)"
)
ADVICE = {
    "Killed": "most often because memory ran out: lower data.workers, or give the job more memory",
    "Bus error": "because shared memory is full: enlarge /dev/shm (docker run --shm-size=8g), or lower data.workers",
}


@contextmanager
def watched_workers(workers: Sequence[Any] = ()) -> Iterator[None]:
    """Inside, a data worker that ends before its time raises UserError, which names its process and what to do.

    PyTorch reports it by a RuntimeError in the main thread, wherever that is: this surrounds all that runs meanwhile.
    If the worker was about to hand over a batch, a broken connection comes first.

    Args:
        workers: the worker processes, where they are known: they know the signal when the error does not.
    """
    try:
        yield
    except (RuntimeError, OSError, EOFError) as error:
        ended = ENDED.search(str(error))
        if ended is not None and ended[2]:
            raise UserError(ended_line(*ended.groups())) from None
        dead = first_dead(workers)
        if dead is not None:
            name = signal.strsignal(-dead.exitcode) if dead.exitcode < 0 else None
            raise UserError(ended_line(str(dead.pid), name)) from None
        if ended is not None:
            raise UserError(ended_line(ended[1], None)) from None
        raise


def first_dead(workers: Sequence[Any]) -> Any:
    """The first of these processes that ended with another status than 0; None if none does within a second."""
    ended = wait([worker.sentinel for worker in workers], timeout=1.0) if workers else []
    for worker in workers:
        if worker.sentinel in ended:
            worker.join(1.0)  # its files are closed a moment before it has an exit status
    return next((worker for worker in workers if worker.exitcode), None)


def ended_line(processes: str, name: str | None) -> str:
    """The line for workers that ended.

    Args:
        processes: their numbers.
        name: of the signal that ended them, in words; None: unknown.
    """
    who = f"a data worker (process {processes}) was ended"
    if name in ADVICE:
        return f"{who} by the system ({name}), {ADVICE[name]}"
    return f"{who} ({name or 'no signal is known'}): set data.workers=0 to see the reason, or lower it"
