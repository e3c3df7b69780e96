"""The interface between a training recipe and the trainer."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn

from keep.archs.compare import Difference, option_differences, stored_options
from keep.archs.public import from_public, layout_of
from keep.flow.gmflow import GMFlow
from keep.utils.errors import UserError
from keep.utils.weight_files import State, fill

Batch = Mapping[str, Any]
Terms = dict[str, torch.Tensor]


def _as_it_is(state: State, _path: Path) -> State:
    return state


@dataclass(frozen=True)
class Slot:
    """A part of a recipe that loads weights from a file: an entry of the YAML's ``pretrained``.

    Attributes:
        what: the weights in words, for messages.
        network: the recipe's network that is filled.
        parts: children of the network that are filled; None: all of it.
        optional: those of them that the file may lack.
        convert: the weights of a file, ``convert(state, path)``, in the names of ``network``.
        required: a run does not start without this file.
    """

    what: str
    network: str = "net"
    parts: tuple[str, ...] | None = None
    optional: frozenset[str] = frozenset()
    convert: Callable[[State, Path], State] = _as_it_is
    required: bool = False

    def fill(self, recipe: nn.Module, state: State, path: Path, only: Iterable[str] = ()) -> list[str]:
        """Load a file's weights; every name and shape must fit.

        Args:
            recipe: the recipe whose network is filled.
            state: the weights, in the file's names.
            path: the file, for messages.
            only: fill only these parts of the network; none named: all parts of the slot.

        Returns:
            names of the tensors in the network that were loaded.
        """
        network = recipe.get_submodule(self.network)
        state = self.convert(state, path)
        if self.parts is None and not only:
            return fill(network, state, path)
        available = self.parts or tuple(name for name, _ in network.named_children())
        if unknown := [part for part in only if part not in available]:
            raise UserError(f"{', '.join(unknown)}: no such part of {self.network}; parts: {', '.join(available)}")
        parts = list(only) or list(available)
        found = {key.split(".")[0] for key in state}
        parts = [part for part in parts if part in found or part not in self.optional]
        given = {k: v for k, v in state.items() if k.split(".")[0] in parts} if only or self.optional else state
        chosen = nn.ModuleDict({part: getattr(network, part) for part in parts})
        return fill(chosen, given, path, type(network).__name__)


def differences_from_file(content: Mapping[str, Any], state: State, built: Mapping[str, Any]) -> list[Difference]:
    """Options that differ between the network of a file and the network that is filled, and that no shape shows.

    Args:
        content: of the file.
        state: the weights in it, in the file's names.
        built: the network that is filled, as ``{"type": …, **options}``.

    Returns:
        (option, value in the file, value in ``built``); empty if the file does not store its network.
    """
    stored = stored_options(content, state)
    return [] if stored is None else list(option_differences(stored, built))


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

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank: plain data and CPU tensors."""
        return [value]

    def broadcast(self, value: Any) -> Any:
        """The first process's value: plain data, or a tensor of the same shape in all processes."""
        return value


class Recipe(nn.Module, ABC):
    """Base of the three stages and of the error model. Subclasses hold their networks and losses as modules.

    Attributes:
        net: the network that is trained, checkpointed and averaged (EMA).
        discriminator: trained beside it by an optimizer of the same name; None without an adversarial loss.
        needs_lq: whether its clips must be degraded.
        min_frames: the shortest training clip in which every trained weight gets a gradient.
        stats: further numbers of the last step to log: name → scalar tensor.
        codes: indices of the codes chosen in the last step, whose use is logged: name → int64 tensor.
        ranks: collective operations over the processes that share the step; the trainer sets it.
        last_step: number of the step that runs or has just ended, from 0; the trainer sets it.
        keeps_graph: whether :meth:`losses` itself runs a backward pass, through a graph that the trainer uses again.
        unused_parameters: whether some steps leave trained parameters without a gradient. Such steps do not change
            these parameters, and the optimizer has no state of them.
    """

    net: Any
    needs_lq = False
    min_frames = 1

    def __init__(self) -> None:
        super().__init__()
        self.discriminator: nn.Module | None = None
        self.stats: dict[str, torch.Tensor] = {}
        self.codes: dict[str, torch.Tensor] = {}
        self.ranks = OneProcess()
        self.last_step = 0
        self.keeps_graph = False
        self.unused_parameters = False

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

    def check_flows(self) -> None:
        """Raise UserError if a flow estimator would estimate with random weights."""
        for module in self.modules():
            if isinstance(module, GMFlow):
                module.require_weights()

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

    def warnings(self) -> list[str]:
        """New lines to warn of; called when the trainer logs a step. Only here may a recipe wait for the GPU."""
        return []

    @abstractmethod
    def restore(self, frames: torch.Tensor) -> torch.Tensor:
        """Clips of validation, (B, T, 3, h, w) in [-1, 1] → output frames (B, T, 3, H, W)."""

    def panels(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Name → pictures (1, T, 3, H, W) in [-1, 1] of the batch's first clip, for TensorBoard."""
        truth = batch["gt"][:1]
        source = batch.get("lq", truth)[:1]
        return {"input": source, "output": self.restore(source), "truth": truth}


def keep_slot(net: Any, what: str, required: bool = False) -> Slot:
    """The slot for a whole KEEP, in our names or a public layout.

    A flow estimator that has weights of its own keeps them. A GMFlow without takes those that the file carries.
    """
    takes_flow = isinstance(net.flownet, GMFlow) and not net.flownet.trained

    def convert(state: State, _path: Path) -> State:
        if (layout_of(state) or "").startswith("public"):
            state = from_public(state)
        return {k: v for k, v in state.items() if takes_flow or not k.startswith("flownet.")}

    parts = tuple(name for name, _ in net.named_children() if takes_flow or name != "flownet")
    return Slot(what, parts=parts, optional=frozenset({"flownet"}), convert=convert, required=required)


def discriminator_slot(recipe: Recipe) -> dict[str, Slot]:
    """The slot of the recipe's discriminator, if it has one."""
    if recipe.discriminator is None:
        return {}
    return {"discriminator": Slot("its discriminator, models/net_d_latest.pth", network="discriminator")}


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
