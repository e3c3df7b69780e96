"""What a training recipe is to the trainer."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn

from keep.utils.weight_files import State, fill

Batch = Mapping[str, Any]
Terms = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Slot:
    """A part of a recipe that takes weights from a file: an entry of the YAML's ``pretrained``.

    ``fill(state, path)`` loads them; ``what`` says in words which weights are meant; a run does not start
    while a ``required`` slot is empty.
    """

    fill: Callable[[State, Path], None]
    what: str
    required: bool = False


class OneProcess:
    """Collective operations of a run in one process: each returns its argument.

    The trainer hands over :class:`keep.training.distributed.Ranks`, which has the same methods for several processes.
    """

    def mean(self, x: torch.Tensor) -> torch.Tensor:
        """The mean of a tensor over the processes."""
        return x

    def max(self, x: torch.Tensor) -> torch.Tensor:
        """The largest of the processes' tensors, element by element."""
        return x

    def broadcast(self, value: Any) -> Any:
        """The first process's value: plain data, or a tensor of the same shape in all processes."""
        return value


class Recipe(nn.Module, ABC):
    """Base of the three stages. Subclasses hold their networks and losses as modules.

    Attributes:
        net: the network that is trained, checkpointed and averaged (EMA).
        needs_lq: whether its clips must be degraded ones.
        stats: numbers of the last step worth logging beside the losses: name → scalar tensor.
        codes: indices of the codes chosen in the last step, whose use is logged: name → int64 tensor.
        ranks: collective operations over the processes that share the step; the trainer sets it.
    """

    net: Any
    needs_lq = False

    def __init__(self) -> None:
        super().__init__()
        self.stats: dict[str, torch.Tensor] = {}
        self.codes: dict[str, torch.Tensor] = {}
        self.ranks = OneProcess()

    @property
    def codebook_size(self) -> int:
        """Number of codes that :attr:`codes` are indices of."""
        return self.net.codebook.embedding.num_embeddings

    def train(self, mode: bool = True) -> "Recipe":
        """As usual, but what does not train stays in evaluation mode: its norms must not follow the clips."""
        super().train(mode)
        for module in self.modules():
            weights = list(module.parameters())
            if weights and not any(p.requires_grad for p in weights):
                module.eval()
        return self

    def slots(self) -> dict[str, Slot]:
        """The parts that ``pretrained`` can name."""
        return {}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Optimizer name (``net``, ``discriminator``) → the parameters it trains."""
        groups = {"net": trainable(self.net)}
        if isinstance(discriminator := getattr(self, "discriminator", None), nn.Module):
            groups["discriminator"] = trainable(discriminator)
        return groups

    def phases(self) -> dict[str, int]:
        """Name → first step (0-based) of every part of the run in which the step does something else."""
        return {"start": 0}

    @abstractmethod
    def losses(self, batch: Batch, step: int) -> Iterator[tuple[str, Terms]]:
        """One step: yields (optimizer name, weighted loss terms).

        The trainer sums the terms and runs backward before it asks for the next pair; the optimizers all step at
        the end, when every batch of the step is through. Gradients of a pair must reach the weights of its own
        optimizer alone (see :func:`frozen`). A mean over the batch must be one over equal shares, so that processes
        and accumulated batches give what one large batch gives.
        ``batch``: ``gt`` (B, T, 3, H, W) and, where the data is degraded, ``lq`` (B, T, 3, h, w), in [-1, 1];
        ``name``: the clips' names.
        """

    def after_step(self, step: int) -> None:
        """Called in all processes after the optimizers' step ``step`` (from 0), unless that step was left out."""

    @abstractmethod
    def restore(self, frames: torch.Tensor) -> torch.Tensor:
        """Clips as validation feeds them, (B, T, 3, h, w) in [-1, 1] → output frames (B, T, 3, H, W)."""


def fill_keep(net: nn.Module, state: State, path: Path) -> None:
    """Load a KEEP of ours into ``net``, but for the flow estimator: it is the options', and has its own weights."""
    own = nn.ModuleDict({name: part for name, part in net.named_children() if name != "flownet"})
    fill(own, {k: v for k, v in state.items() if not k.startswith("flownet.")}, path, type(net).__name__)


def trainable(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]


def freeze(*modules: nn.Module) -> None:
    """No gradients for these modules' parameters."""
    for module in modules:
        module.requires_grad_(False)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Gradients flow through ``module`` but not into it: a discriminator while the generator trains."""
    flags = [(p, p.requires_grad) for p in module.parameters()]
    module.requires_grad_(False)
    try:
        yield
    finally:
        for p, flag in flags:
            p.requires_grad_(flag)
