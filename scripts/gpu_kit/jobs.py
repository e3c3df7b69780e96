"""One job of the GPU kit: a command in its own process group, with a time limit and a folder for what it writes."""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GRACE = 8.0
"""Seconds between SIGTERM, on which training saves, and SIGKILL."""
TICK = 0.5
"""Seconds between two looks at a running job."""
LOG_LINES = 15
"""Last lines of a log that the report of a failed job shows."""


@dataclass(frozen=True)
class Job:
    """What to run.

    Attributes:
        name: of the job and of its folder.
        what: what it measures, for the report.
        command: its command line; ``@FOLDER`` stands for its folder, ``@SECONDS`` for its time limit.
        seconds: its time limit; None: its share of the time that is left.
        share: that share, in proportion to those of the jobs after it.
        run: folder of the training run that it starts, whose weights are kept.
        ok: exit statuses of success.
    """

    name: str
    what: str
    command: Sequence[str]
    seconds: float | None
    share: float = 1.0
    run: Path | None = None
    ok: tuple[int, ...] = (0,)


@dataclass
class Outcome:
    """How a job ended.

    Attributes:
        name: of the job.
        what: what it measures.
        status: ``waiting``, ``running``, ``done``, ``failed``, ``out of time``, or ``skipped``: no time was left.
        seconds: that it ran.
        limit: the seconds that it had.
        log: the last lines of its log, if it failed.
        tables: table → rows, as read from its JSON files.
    """

    name: str
    what: str
    status: str = "waiting"
    seconds: float = 0.0
    limit: float = 0.0
    log: list[str] = field(default_factory=list)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


def run_job(
    job: Job,
    folder: Path,
    limit: float,
    environment: Mapping[str, str],
    tick: Callable[[], bool],
    grace: float = GRACE,
) -> tuple[str, float]:
    """Run a job to its end or its limit. Nothing of it runs afterwards.

    Args:
        job: what to run.
        folder: for its log, ``log.txt``, and its results.
        limit: seconds until SIGTERM.
        environment: its environment variables.
        tick: called every half second; it returns True to stop the job.
        grace: seconds from SIGTERM to SIGKILL.

    Returns:
        status and seconds, see :class:`Outcome`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seconds = f"{limit:.1f}"
    command = [word.replace("@FOLDER", str(folder)).replace("@SECONDS", seconds) for word in job.command]
    start = time.monotonic()
    with (folder / "log.txt").open("wb") as log:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=dict(environment),
                start_new_session=True, preexec_fn=end_with_parent,
            )  # fmt: skip
        except OSError as error:
            log.write(f"{command[0]}: {error.strerror}\n".encode())
            return "failed", 0.0
    try:
        stopped = not wait(process, start + limit, tick)
        if stopped:
            signal_group(process.pid, signal.SIGTERM)
            wait(process, time.monotonic() + grace, lambda: False)
    finally:
        signal_group(process.pid, signal.SIGKILL)  # also what a job left behind, such as data workers
        process.wait()
    seconds = time.monotonic() - start
    if process.returncode in job.ok:
        return "done", seconds
    return ("out of time" if stopped else "failed"), seconds


def wait(process: subprocess.Popen[bytes], end: float, tick: Callable[[], bool]) -> bool:
    """Wait for a process until ``end`` (monotonic seconds) or until ``tick`` returns True; whether it has ended."""
    while (left := end - time.monotonic()) > 0:
        try:
            process.wait(min(TICK, left))
            return True
        except subprocess.TimeoutExpired:
            if tick():
                return False
    return process.poll() is not None


def end_with_parent() -> None:
    """In a new process: get SIGTERM when the kit is killed, so that nothing goes on without it (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def last_lines(log: Path) -> list[str]:
    """The last lines of a log that hold text."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    return [line.rstrip() for line in text.replace("\r", "\n").splitlines() if line.strip()][-LOG_LINES:]
