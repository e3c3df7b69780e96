"""Several processes that train together: their collective operations, and the networks that they share.

    torchrun --nproc-per-node 8 -m keep.train -opt options/train/stage3_video.yml

Any launcher works that sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. Without them there is one
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

from keep.models.base import OneProcess, Recipe


@dataclass(frozen=True)
class Ranks(OneProcess):
    """This process among those of the run. With one process every method returns its argument.

    Attributes:
        rank: number of this process.
        world: number of processes, on all machines.
        local: number of this process on its machine, which is the number of its GPU.
    """

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes files and log lines."""
        return self.rank == 0

    def mean(self, x: torch.Tensor) -> torch.Tensor:
        """The mean of a tensor over the processes; ``x`` does not change."""
        return self._reduced(x, dist.ReduceOp.SUM) / self.world if self.world > 1 else x

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over the processes."""
        return self._reduced(x, dist.ReduceOp.SUM)

    def max(self, x: torch.Tensor) -> torch.Tensor:
        """The largest of the processes' tensors, element by element."""
        return self._reduced(x, dist.ReduceOp.MAX)

    def start_max(self, x: torch.Tensor) -> "Arriving":
        """Start to compute :meth:`max` of a vector and to copy it to the host, without waiting for either.

        ``x`` must not be used afterwards.
        """
        return Arriving(x, dist.all_reduce(x, dist.ReduceOp.MAX, async_op=True) if self.world > 1 else None)

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank: plain data and CPU tensors."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: Any) -> Any:
        """The first process's value: plain data, or a tensor of the same shape in all processes."""
        if self.world == 1:
            return value
        if isinstance(value, torch.Tensor):
            value = value.detach().clone()
            dist.broadcast(value, 0)
            return value
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def barrier(self) -> None:
        """Wait until all processes have called this."""
        self.max(torch.zeros(()))

    def _reduced(self, x: torch.Tensor, operation: Any) -> torch.Tensor:
        if self.world == 1:
            return x
        x = x.detach().clone()
        dist.all_reduce(x, operation)
        return x


class Arriving:
    """Numbers on their way from the device to the host.

    Args:
        x: a vector on the device.
        work: the collective operation that writes it, if any.
    """

    def __init__(self, x: torch.Tensor, work: Any = None) -> None:
        self._x, self._work, self._copied = x, work, None
        if x.device.type == "cuda":
            if work is not None:
                work.wait()  # NCCL: the stream waits, the host does not
            self._x, self._work = torch.empty(x.shape, dtype=x.dtype, pin_memory=True), None
            self._x.copy_(x, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def read(self) -> list[float]:
        """The numbers; waits until they have arrived."""
        if self._work is not None:
            self._work.wait()
        if self._copied is not None:
            self._copied.synchronize()
        return self._x.tolist()


class Replicated(DistributedDataParallel):
    """A network whose gradients are averaged over the processes; its weights and attributes keep their names."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        # A frozen discriminator, and validation, where each process has other clips, must not communicate.
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


def wrap(recipe: Recipe, ranks: Ranks, device: torch.device) -> None:
    """Share the recipe's trained networks over the processes; their weights are equal from then on.

    The only place that shares networks: FSDP2 would replace this function. Batch norm uses the statistics of all
    processes on CUDA; on a CPU, where PyTorch has no such layer, those of the process's own clips.
    """
    if ranks.world == 1:
        return
    if recipe.unused_parameters:  # PyTorch advises against the search in steps that use all of them
        warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
    for name, network in list(recipe.named_children()):
        if any(p.requires_grad for p in network.parameters()):
            if device.type == "cuda":
                network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
            with warnings.catch_warnings():  # PyTorch 2.15 renames broadcast_buffers; 2.11 knows no other name
                warnings.simplefilter("ignore", FutureWarning)
                shared = Replicated(
                    network,
                    broadcast_buffers=False,
                    gradient_as_bucket_view=True,
                    find_unused_parameters=name == "net" and recipe.unused_parameters,
                )
            setattr(recipe, name, shared)


@contextmanager
def no_sync(recipe: nn.Module) -> Iterator[None]:
    """Inside, gradients are not averaged over processes: for all but the last batch of an accumulated step."""
    with ExitStack() as stack:
        for network in recipe.children():
            if isinstance(network, Replicated):
                stack.enter_context(network.no_sync())
        yield
