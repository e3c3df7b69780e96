"""Two processes share one device through Gloo: the result of one with twice the clips."""

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import gpu_runs
import pytest
import ranks
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

from keep.config.reading import load
from keep.config.schema import TrainConfig
from keep.training import trainer
from keep.training.distributed import Ranks
from keep.training.optimizers import Adam
from keep.utils import weight_files

# Plain gradient steps: Adam's amplify rounding. On a CPU, batch norm uses each process's own statistics, and dead codes
# move to the first process's tokens.
ALIKE = ["train.optim.lr=1e-2", "train.schedule={type: Constant}", "data.clips_per_step=2"]
STAGES = {
    1: ["model.discriminator.norm=instance", "model.revive=0", "train.optim_d.lr=1e-2"],
    2: [],
    3: ["train.optim_d.lr=1e-2"],
}


@contextmanager
def gloo(_: str) -> Iterator[Ranks]:
    """In place of ``processes``, which gives each process a GPU of its own: NCCL needs that, Gloo does not."""
    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo", rank=rank, world_size=2)
    yield Ranks(rank, 2, 0)
    dist.destroy_process_group()


def work(rank: int, jobs: Sequence[tuple[int, Path, list[str]]]) -> None:
    """Train the stages of ``jobs``: (port for the processes to meet at, options file, overrides)."""
    torch.set_num_threads(1)
    trainer.processes, Adam.kind = gloo, staticmethod(ranks.sgd)
    for port, path, overrides in jobs:
        os.environ |= {"RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        trainer.train(load(path, overrides, TrainConfig))


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.mark.slow
def test_two_processes_on_one_device_give_the_result_of_one(device, clips, tmp_path, monkeypatch) -> None:
    def options(stage: int, root: str) -> tuple[Path, list[str]]:  # a root each: a start replaces a stage's weights
        return gpu_runs.words(stage, clips, tmp_path / root / str(stage), device, *ALIKE, *STAGES[stage])

    ports = free_ports(len(STAGES))
    jobs = [(port, *options(stage, "two")) for port, stage in zip(ports, STAGES, strict=True)]
    start_processes(work, args=(jobs,), nprocs=2, start_method="spawn")
    monkeypatch.setattr(Adam, "kind", staticmethod(ranks.sgd))
    for stage in STAGES:
        _, expected = gpu_runs.train(load(*options(stage, "one"), TrainConfig))
        shared = weight_files.load(tmp_path / f"two/{stage}/stage{stage}/models/net_3.pth")["params"]
        for key, value in expected.items():
            if value.is_floating_point():
                torch.testing.assert_close(shared[key], value, rtol=1e-3, atol=2e-5, msg=f"stage {stage}: {key}")
