"""Jobs of SLURM through submitit (extra ``submitit``): each task is a rank, and a stopped job is requeued."""

import os
import re
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keep.utils.errors import UserError, first_line
from keep.utils.signals import REQUEUE
from keep.utils.starting import INTERRUPTED

STOPPED = (REQUEUE, INTERRUPTED, -signal.SIGTERM)
"""Exit statuses of a task that was stopped; SIGTERM: it was starting, before Python could handle the signal."""
DELAY = 300
"""Seconds before the time limit at which SLURM sends its signal."""


@dataclass(frozen=True)
class Task:
    """What every task of a job runs: a program, as one rank.

    Attributes:
        words: the program and its arguments.
    """

    words: Sequence[str]

    def __call__(self) -> None:
        """Run the program. SLURM's signals are passed on to it; if they stopped it, the job is requeued.

        Raises:
            RuntimeError: any other exit status but 0.
        """
        import submitit

        job = submitit.JobEnvironment()
        user = getattr(signal, f"SIG{job.USR_SIG}")
        requeue: Any = signal.getsignal(user)  # submitit's, which calls checkpoint() and ends this process
        program = subprocess.Popen(self.words, env={**os.environ, **ranks(job)})
        for number in (user, signal.SIGUSR1, signal.SIGTERM):
            signal.signal(number, lambda *_: program.send_signal(signal.SIGTERM))
        status = program.wait()
        if status in STOPPED:
            print(f"rank {job.global_rank}: stopped with status {status}", flush=True)
            requeue(user, None)  # of the first task; the others return
        elif status:
            raise RuntimeError(f"exit status {status}: {' '.join(self.words)}")

    def checkpoint(self) -> Any:
        """What the requeued job runs: the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def ranks(job: Any) -> dict[str, str]:
    """The variables of a launcher, for this task of a job."""
    number = int("".join(digit for digit in job.job_id if digit.isdigit()))
    return {
        "RANK": str(job.global_rank), "LOCAL_RANK": str(job.local_rank), "WORLD_SIZE": str(job.num_tasks),
        "MASTER_ADDR": job.hostnames[0], "MASTER_PORT": str(20000 + number % 20000),
    }  # fmt: skip


def submit(task: Task, logs: str | Path, local: bool = False, **parameters: Any) -> Any:
    """Submit a job.

    Args:
        task: what each of its tasks runs.
        logs: folder of its log files, on a disk that all machines share.
        local: run it on this machine instead.
        parameters: of ``submitit.AutoExecutor.update_parameters``: ``nodes``, ``tasks_per_node``, ``gpus_per_node``,
            ``cpus_per_task``, ``timeout_min``, ``name``; with the prefix ``slurm_`` any other of submitit's for SLURM.

    Returns:
        the job of submitit.

    Raises:
        UserError: submitit or SLURM is missing, or SLURM refuses the job.
    """
    try:
        import submitit
        from submitit.core.utils import FailedJobError
    except ImportError:
        raise UserError('keep-submit needs the package submitit: pip install "keep-vfsr[submitit]"') from None
    try:
        often = {"slurm_max_num_timeout": 10**6}  # a queue with a limit of hours can run a training of weeks
        executor = submitit.AutoExecutor(logs, cluster="local" if local else "slurm", **({} if local else often))
        executor.update_parameters(
            slurm_signal_delay_s=DELAY, slurm_srun_args=["--kill-on-bad-exit=0", "--wait=120"], **parameters
        )
        return executor.submit(task)
    except (RuntimeError, ValueError, OSError, FailedJobError) as error:
        raise UserError(f"cannot submit: {first_line(error)}") from error


def wait(job: Any) -> None:
    """Wait for a job.

    Raises:
        UserError: it failed.
    """
    from submitit.core.utils import UncompletedJobError

    try:
        job.results()
    except UncompletedJobError as error:
        reasons = re.findall(r"^\w+Error: (.+)", str(error), re.MULTILINE) or ["it left no result"]
        raise UserError(f"job {job.job_id} failed: {reasons[-1]}; logs: {job.paths.stderr}") from error
