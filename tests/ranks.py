"""Train with two processes on this machine, started as torchrun starts them."""

import json
import multiprocessing
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import ProcessExitedException, start_processes

from keep.config.reading import load
from keep.config.schema import TrainConfig
from keep.losses.pixel import L1
from keep.training import trainer, validation
from keep.training.optimizers import Adam
from keep.utils import signals
from keep.utils.errors import UserError


def run_pair(jobs: Sequence[dict[str, Any]], folder: Path) -> list[list[str]]:
    """Run the jobs in turn in two processes; returns the result of each job in each process.

    A job has the keys ``options``, ``overrides`` and, if needed, ``resume``; ``sgd`` (plain gradient steps: Adam's
    amplify rounding); ``stop_at`` (the second process gets SIGTERM in that step) or ``stop_in_validation``; ``nan_at``
    (the second process's L1 is NaN in that step); ``own`` (overrides of the second process alone); ``worker_dies_at``
    (the second process's data worker is killed in that step); ``dies_at`` (the second process is killed in that step:
    for the last job).
    """
    for job in jobs:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            job["port"] = free.getsockname()[1]
    try:
        start_processes(_work, args=(jobs, str(folder)), nprocs=2, start_method="spawn")
    except ProcessExitedException as error:
        if error.exit_code != -signal.SIGKILL or "dies_at" not in jobs[-1]:
            raise
    both = [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]
    return [list(pair) for pair in zip(*both, strict=True)]


def _work(rank: int, jobs: Sequence[dict[str, Any]], folder: str) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what PyTorch sends to the other process when one is killed
    results = []
    for job in jobs:
        os.environ |= {
            "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(job["port"]),
        }  # fmt: skip
        if "dies_at" in job:
            Path(folder, f"{rank}.json").write_text(json.dumps([*results, "killed"]))
        results.append(_train(rank, job))
    Path(folder, f"{rank}.json").write_text(json.dumps(results))


def _train(rank: int, job: dict[str, Any]) -> str:
    Adam.kind = staticmethod(sgd) if job.get("sgd") else torch.optim.Adam
    step, loss, evaluate = trainer.train_step, L1.forward, validation.evaluate

    def signalled(run: Any, batches: Any) -> Any:
        if rank == 1 and run.step + 1 == job.get("stop_at"):
            os.kill(os.getpid(), signal.SIGTERM)
        if rank == 1 and run.step + 1 == job.get("dies_at"):
            os.kill(os.getpid(), signal.SIGKILL)
        if rank == 1 and run.step + 1 == job.get("worker_dies_at"):
            os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
        if rank == 1 and run.step + 1 == job.get("nan_at"):
            L1.forward = lambda self, output, target: loss(self, output, target) * float("nan")  # type: ignore[method-assign]
        return step(run, batches)

    def signalled_evaluate(*args: Any, **options: Any) -> Any:
        if rank == 1 and job.get("stop_in_validation"):
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*args, **options)

    trainer.train_step, validation.evaluate = signalled, signalled_evaluate
    try:
        config = load(job["options"], [*job["overrides"], *(job.get("own", ()) if rank else ())], TrainConfig)
        return f"done {trainer.train(config, job.get('resume'))}"
    except signals.Stopped as stopped:
        return f"stopped {stopped}"
    except UserError as error:
        return f"error {error}"
    finally:
        trainer.train_step, L1.forward, validation.evaluate = step, loss, evaluate
        if dist.is_initialized():
            dist.destroy_process_group()


def sgd(groups: Any, lr: float, **_: Any) -> torch.optim.Optimizer:
    """Plain gradient steps in place of Adam's, which enlarge rounding; for ``Adam.kind``."""
    return torch.optim.SGD(groups, lr=lr)
