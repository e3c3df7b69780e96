"""Submit a training, a restoration or a benchmark to SLURM from Python, through submitit.

    python -m scripts.slurm.submit train -opt options/train/stage1_vqgan.yml
    python -m scripts.slurm.submit --nodes 2 --hours 4 --slurm partition=a100 train -opt options/train/stage3_video.yml
    python -m scripts.slurm.submit --gpus 4 restore videos/ -o restored/ -w KEEP
    python -m scripts.slurm.submit --local --gpus 0 train -opt options/tiny/stage1.yml      # on this machine, to try it

One task a GPU, each a rank. As with train.sbatch, the tasks are stopped before the time limit and at a preemption, the
job is requeued, and its next start goes on: a training resumes, finished videos and clips are skipped. Any other status
but 0 ends the job.
"""  # fmt: skip

import argparse
import os
import re
import signal
import subprocess
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keep.config import arguments, cli
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
        import cloudpickle
        import submitit
        from submitit.core.utils import FailedJobError
    except ImportError:
        raise UserError('scripts.slurm.submit needs the package submitit: pip install "keep-vfsr[submitit]"') from None
    # A job imports the installed package, but not this file.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        often = {"slurm_max_num_timeout": 10**6}  # a queue with a limit of hours can run a training of weeks
        executor = submitit.AutoExecutor(logs, cluster="local" if local else "slurm", **({} if local else often))
        executor.update_parameters(
            slurm_signal_delay_s=DELAY, slurm_srun_args=["--kill-on-bad-exit=0", "--wait=120"], **parameters
        )
        return executor.submit(task)
    except (RuntimeError, ValueError, OSError, FailedJobError) as error:
        raise UserError(f"cannot submit: {first_line(error)}") from error


def command(argv: Sequence[str] | None) -> None:
    assert __doc__
    p = cli.Parser(prog="scripts.slurm.submit", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    p.add_argument("--nodes", type=arguments.count, default=1, help="machines (1)")
    p.add_argument(
        "--gpus", type=arguments.processes, default=8, metavar="N", help="GPUs, and tasks, of each; 0: one task (8)"
    )
    p.add_argument("--cpus", type=arguments.count, default=6, metavar="N", help="CPU cores of each task (6)")
    p.add_argument("--hours", type=arguments.number(0, 8760, above=True), default=24, help="time limit of a start (24)")
    p.add_argument("--name", default="keep", help="of the job (keep)")
    p.add_argument(
        "--logs", default="slurm_logs", metavar="FOLDER", help="logs are FOLDER/JOB_TASK_log.out and .err (slurm_logs)"
    )
    p.add_argument(
        "--slurm", action="append", default=[], metavar="KEY=VALUE", help="any option of sbatch; can be repeated"
    )
    p.add_argument("--local", action="store_true", help="run on this machine and wait, without SLURM")
    p.add_argument("program", choices=("train", "restore", "test"), help="keep.train, keep.restore or keep.test")
    p.add_argument("arguments", nargs=argparse.REMAINDER, metavar="…", help="its arguments")
    args = p.parse_args(argv)
    words = [sys.executable, "-m", f"keep.{args.program}", *args.arguments]
    task = Task([*words, "--auto-resume"] if args.program == "train" else words)
    job = submit(
        task, args.logs, args.local, name=args.name, nodes=args.nodes, tasks_per_node=args.gpus or 1,
        gpus_per_node=args.gpus, cpus_per_task=args.cpus, timeout_min=max(1, round(60 * args.hours)),
        slurm_additional_parameters={"requeue": True, **dict(pair(text) for text in args.slurm)},
    )  # fmt: skip
    print(f"job {job.job_id}; logs: {job.paths.stdout}")
    if args.local:
        wait(job)


def pair(text: str) -> tuple[str, str]:
    """KEY and VALUE of ``KEY=VALUE``."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise UserError(f"--slurm: must be KEY=VALUE, not {text!r}")
    return key.lstrip("-"), value


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


if __name__ == "__main__":
    sys.exit(cli.run(command))
