"""What torchrun gives: rank, world, barrier, reductions; and the one function that makes networks work together.

    torchrun --nproc-per-node 8 -m keep.train -opt options/train/stage3_video.yml

Any launcher will do that sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. Without them the run is one
process and nothing here communicates.
"""  # fmt: skip

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn as nn
from torch.nn.parallel import DistributedDataParallel

from keep.utils.errors import UserError
from keep.utils.launch import launched_ranks


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run. With one process every method is a plain identity.

    Attributes:
        rank: number of this process.
        world: how many there are, on all machines.
        local: number of this process on its machine: which GPU is its own.
    """

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes the files and tells what happens."""
        return self.rank == 0

    def mean(self, x: torch.Tensor) -> torch.Tensor:
        """The mean of a tensor over the processes; ``x`` itself stays."""
        return self._reduced(x, dist.ReduceOp.SUM) / self.world if self.world > 1 else x

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over the processes."""
        return self._reduced(x, dist.ReduceOp.SUM)

    def max(self, x: torch.Tensor) -> torch.Tensor:
        """The largest of the processes' tensors, element by element."""
        return self._reduced(x, dist.ReduceOp.MAX)

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is true in any process: all get the same answer."""
        return bool(self.max(torch.tensor(float(flag))))

    def gather(self, value: Any) -> list[Any]:
        """Everybody's ``value``, by rank: plain data and CPU tensors."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: Any) -> Any:
        """The first process's ``value``."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def barrier(self) -> None:
        """Wait until all processes are here."""
        self.any(False)

    def _reduced(self, x: torch.Tensor, how: Any) -> torch.Tensor:
        if self.world == 1:
            return x
        x = x.detach().clone()
        dist.all_reduce(x, how)
        return x


@contextmanager
def processes(device: str) -> Iterator[Ranks]:
    """Join the other processes of the run, if a launcher started any; leave them at the end.

    Args:
        device: the option ``device``: with CUDA the GPUs talk through NCCL; CPU tensors always through Gloo.

    Raises:
        UserError: the launcher's variables are not whole, or name a rank that cannot be.
    """
    ranks = Ranks(*launched_ranks(complete=True))
    if ranks.world == 1:
        yield ranks
        return
    cuda = torch.cuda.is_available() and device != "cpu"
    if cuda and device in ("auto", "cuda"):
        if ranks.local >= torch.cuda.device_count():
            raise UserError(
                f"LOCAL_RANK is {ranks.local}, but this machine has {torch.cuda.device_count()} CUDA devices: "
                "start one process a GPU (torchrun --nproc-per-node)"
            )
        torch.cuda.set_device(ranks.local)
    elif cuda:
        raise UserError(f"device: {device} names one GPU, but {ranks.world} processes share the run: use auto")
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    yield ranks  # after an error the process ends as it is: the others may wait for it, and the launcher ends them
    dist.destroy_process_group()


class Replicated(DistributedDataParallel):
    """A network whose gradients are averaged over the processes; names of weights and attributes stay its own."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        # A discriminator that only judges, and validation, where each process has other clips, must not communicate.
        if torch.is_grad_enabled() and any(p.requires_grad for p in self.module.parameters()):
            return super().forward(*args, **kwargs)
        return self.module(*args, **kwargs)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.module.state_dict(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.module, name)


def wrap(recipe: nn.Module, ranks: Ranks, device: torch.device) -> None:
    """Make the recipe's trained networks work together over the processes; from here on their weights are equal.

    The one place that knows how: another way of sharing (FSDP2) would stand here. Batch norm takes the statistics of
    all processes on CUDA; on a CPU, where PyTorch has no such layer, those of its own clips.
    """
    if ranks.world == 1:
        return
    for name, network in list(recipe.named_children()):
        if any(p.requires_grad for p in network.parameters()):
            if device.type == "cuda":
                network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
            with warnings.catch_warnings():  # PyTorch 2.15 renames broadcast_buffers; 2.11 knows no other name
                warnings.simplefilter("ignore", FutureWarning)
                shared = Replicated(network, broadcast_buffers=False, gradient_as_bucket_view=True)
            setattr(recipe, name, shared)


@contextmanager
def no_sync(recipe: nn.Module) -> Iterator[None]:
    """Within, gradients only add up in each process: for all but the last part of an accumulated step."""
    with ExitStack() as stack:
        for network in recipe.children():
            if isinstance(network, Replicated):
                stack.enter_context(network.no_sync())
        yield
