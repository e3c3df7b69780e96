"""Submit a training, a restoration or a benchmark to SLURM from Python, through submitit.

    keep-submit train -opt options/train/stage1_vqgan.yml
    keep-submit --nodes 2 --hours 4 --slurm partition=a100 train -opt options/train/stage3_video.yml
    keep-submit --gpus 4 restore videos/ -o restored/ -w KEEP
    keep-submit --local --gpus 0 train -opt options/tiny/stage1.yml      # on this machine, to try it

One task a GPU, each a rank. As with train.sbatch, the tasks are stopped before the time limit and at a preemption, the
job is requeued, and its next start goes on: a training resumes, finished videos and clips are skipped. Any other status
but 0 ends the job.
"""  # fmt: skip

import argparse
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence

from keep.utils.starting import starting

with starting():
    from keep.config import arguments, cli
    from keep.utils.errors import UserError
    from keep.utils.slurm import Task, submit, wait


def command(argv: Sequence[str] | None) -> None:
    assert __doc__
    p = cli.Parser(prog="keep-submit", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
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


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
