"""The interface between a training recipe and the trainer."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn

from keep.utils.errors import UserError
from keep.utils.weight_files import State, fill

Batch = Mapping[str, Any]
Terms = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Slot:
    """A part of a recipe that loads weights from a file: an entry of the YAML's ``pretrained``.

    Attributes:
        fill: loads the weights of a file, ``fill(state, path)``; returns the names of the tensors in ``network`` that
            it loaded.
        what: the weights in words, for messages.
        required: a run does not start without this file.
        network: the recipe's network that is filled.
    """

    fill: Callable[[State, Path], list[str]]
    what: str
    required: bool = False
    network: str = "net"


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
        discriminator: trained beside it by an optimizer of the same name; None without an adversarial loss.
        needs_lq: whether its clips must be degraded.
        stats: further numbers of the last step to log: name → scalar tensor.
        codes: indices of the codes chosen in the last step, whose use is logged: name → int64 tensor.
        ranks: collective operations over the processes that share the step; the trainer sets it.
    """

    net: Any
    needs_lq = False

    def __init__(self) -> None:
        super().__init__()
        self.discriminator: nn.Module | None = None
        self.stats: dict[str, torch.Tensor] = {}
        self.codes: dict[str, torch.Tensor] = {}
        self.ranks = OneProcess()

    @property
    def codebook_size(self) -> int:
        """Number of codes that :attr:`codes` are indices of."""
        return self.net.codebook.embedding.num_embeddings

    def train(self, mode: bool = True) -> "Recipe":
        """As usual, but frozen modules stay in evaluation mode: their norms must not follow the clips."""
        super().train(mode)
        for module in self.modules():
            weights = list(module.parameters())
            if weights and not any(p.requires_grad for p in weights):
                module.eval()
        return self

    def slots(self) -> dict[str, Slot]:
        """Name in ``pretrained`` → the slot that it fills."""
        return {}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Optimizer name (``net``, ``discriminator``) → the parameters it trains."""
        groups = {"net": trainable(self.net)}
        if self.discriminator is not None:
            groups["discriminator"] = trainable(self.discriminator)
        return groups

    def phases(self) -> dict[str, int]:
        """Name → first step (0-based) of every phase of the run; a dry run makes one step of each."""
        return {"start": 0}

    @abstractmethod
    def losses(self, batch: Batch, step: int) -> Iterator[tuple[str, Terms]]:
        """Yield (optimizer name, weighted loss terms) of one batch, once for each optimizer.

        The trainer sums the terms and runs backward before it takes the next pair. All optimizers step at the end,
        after every batch of the step. Gradients of a pair may reach only the weights of its own optimizer (see
        :func:`frozen`). Terms are means over the batch, so that processes and accumulated batches of equal size give
        the same result as one large batch.

        Args:
            batch: ``gt`` (B, T, 3, H, W) and, with degraded data, ``lq`` (B, T, 3, h, w), in [-1, 1]; ``name``: the
                clips' names.
            step: number of the step, from 0.
        """

    def after_step(self, step: int) -> None:
        """Called in all processes after the optimizers' step ``step`` (from 0), unless that step was skipped."""

    @abstractmethod
    def restore(self, frames: torch.Tensor) -> torch.Tensor:
        """Clips of validation, (B, T, 3, h, w) in [-1, 1] → output frames (B, T, 3, H, W)."""


def fill_parts(net: nn.Module, parts: Iterable[str], state: State, path: Path, what: str) -> list[str]:
    """Load ``state`` into the named parts of ``net``; returns the names of the tensors in ``net`` that were loaded."""
    return fill(nn.ModuleDict({part: getattr(net, part) for part in parts}), state, path, what)


def fill_keep(net: nn.Module, state: State, path: Path) -> list[str]:
    """Load a KEEP in our names into ``net``, except the flow estimator: the options choose it and its weights."""
    parts = [name for name, _ in net.named_children() if name != "flownet"]
    state = {k: v for k, v in state.items() if not k.startswith("flownet.")}
    return fill_parts(net, parts, state, path, type(net).__name__)


def discriminator_slot(recipe: Recipe) -> dict[str, Slot]:
    """The slot of the recipe's discriminator, if it has one."""
    if recipe.discriminator is None:
        return {}
    return {"discriminator": Slot(partial(fill, recipe.discriminator), "its discriminator", network="discriminator")}


def adversarial_phases(recipe: Recipe, gan_start: int) -> dict[str, int]:
    """Phases of a recipe whose adversarial term begins at step ``gan_start``."""
    return {"start": 0} | ({"adversarial": gan_start} if recipe.discriminator and gan_start else {})


def check_gan(recipe: Recipe, gan: nn.Module | None) -> None:
    """Raise UserError when the options give a discriminator without its loss, or the loss without it."""
    if (recipe.discriminator is None) != (gan is None):
        raise UserError("model.discriminator and model.gan go together: give both, or neither")


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """The module's parameters that require gradients."""
    return [p for p in module.parameters() if p.requires_grad]


def freeze(*modules: nn.Module) -> None:
    """Turn off the gradients of these modules' parameters."""
    for module in modules:
        module.requires_grad_(False)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Inside, gradients flow through ``module`` but not into it: a discriminator while the generator trains."""
    flags = [(p, p.requires_grad) for p in module.parameters()]
    module.requires_grad_(False)
    try:
        yield
    finally:
        for p, flag in flags:
            p.requires_grad_(flag)
