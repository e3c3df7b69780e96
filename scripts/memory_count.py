"""Memory of a training step, counted without a GPU: operations run on fake tensors, which have a shape and no data.

Fake tensors on the device "cpu", for two reasons. Plain tensors on the device "meta" fail in ``torch.autocast``, which
does not know that device. And a backward pass on fake CUDA tensors needs a GPU.
"""

import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import lpips
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.models import vgg16
from torchvision.models.optical_flow import raft_large, raft_small

from keep.config.schema import TrainConfig, TrainOptions
from keep.flow.dis import DIS
from keep.flow.gmflow import GMFlow
from keep.flow.raft import RAFT
from keep.losses.perceptual import LPIPSDistance, VGGFeatures
from keep.models.base import Batch, Recipe, trainable
from keep.training.precision import autocast

CPU = torch.device("cpu")
Amp = Literal["bf16", "fp16"] | None


@dataclass(frozen=True)
class Memory:
    """Bytes that training holds.

    Attributes:
        weights: what trains, the discriminator included.
        gradients: of these weights.
        moments: of their optimizers.
        ema: the averaged weights.
        frozen: all other networks, and buffers.
        activations: the peak of forward and backward pass above all of these.
        shared: the part of the activations that does not grow with the clips: weights in half precision and the like.
    """

    weights: int
    gradients: int
    moments: int
    ema: int
    frozen: int
    activations: int
    shared: int

    @property
    def fixed(self) -> int:
        """What does not depend on the clips."""
        return self.weights + self.gradients + self.moments + self.ema + self.frozen

    @property
    def total(self) -> int:
        return self.fixed + self.activations


# --- counting ------------------------------------------------------------------------------------------------------


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive and were made by an operation inside this context.

    Views share their storage and count once. Memory that a kernel takes and frees within itself is not seen.

    Attributes:
        now: bytes alive.
        peak: the most that were alive at one time.
        shared: those of the peak that no operation derived from the batch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = self.shared = 0
        self._derived = 0  # bytes alive that were derived from the batch
        self._alive: dict[int, weakref.ref[Any]] = {}  # id of a storage → reference whose callback counts its end
        self._batch: set[int] = set()  # ids of the storages that were derived from the batch

    def add_batch(self, batch: Batch) -> None:
        """Count a batch."""
        for storage in _storages(batch):
            self._add(storage, derived=True)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not isinstance(result, Tensor | Sequence):
            return result  # most calls: the device of a tensor
        made = [storage for storage in _storages(result) if id(storage) not in self._alive]
        if made:
            given = {id(storage) for storage in _storages((args, kwargs))}
            for storage in made:
                if id(storage) not in given:  # else a view of a tensor from outside, or written in place
                    self._add(storage, derived=not given.isdisjoint(self._batch))
        return result

    def _add(self, storage: torch.UntypedStorage, derived: bool) -> None:
        key, size = id(storage), storage.nbytes()
        self._alive[key] = weakref.ref(storage, lambda _: self._remove(key, size))
        self.now += size
        if derived:
            self._batch.add(key)
            self._derived += size
        if self.now > self.peak:
            self.peak, self.shared = self.now, self.now - self._derived

    def _remove(self, key: int, size: int) -> None:
        del self._alive[key]
        self.now -= size
        if key in self._batch:
            self._batch.remove(key)
            self._derived -= size


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


CUDA_FLOAT32 = (
    "group_norm", "layer_norm", "upsample_nearest2d", "upsample_bilinear2d", "pow.Tensor_Scalar", "sum",
    "sum.dim_IntList", "linalg_vector_norm", "softmax.int", "log_softmax.int", "softplus", "exp", "log", "reciprocal",
    "rsqrt",
)  # fmt: skip
"""Operations of our networks and losses that autocast computes in float32 on CUDA, but not on the CPU (the lists are in
PyTorch's ATen/autocast_mode.h)."""


@contextmanager
def autocast_as_on_cuda() -> Iterator[None]:
    """Inside, autocast on the CPU chooses the precision of :data:`CUDA_FLOAT32` as it does on CUDA.

    This decides what bf16 saves: on CUDA every GroupNorm, and the SiLU behind it, keeps its input in float32.
    """

    def in_float32(operation: Any, *args: Any, **kwargs: Any) -> Any:
        half = (torch.bfloat16, torch.float16)
        with torch.autocast("cpu", enabled=False):
            return operation(*(x.float() if isinstance(x, Tensor) and x.dtype in half else x for x in args), **kwargs)

    with torch.library._scoped_library("aten", "IMPL") as library:
        for name in CUDA_FLOAT32:
            packet, _, overload = name.partition(".")
            operation = getattr(getattr(torch.ops.aten, packet), overload or "default")
            library.impl(name, partial(in_float32, operation), "AutocastCPU")
        yield


# --- a step --------------------------------------------------------------------------------------------------------


@contextmanager
def without_weight_files() -> Iterator[None]:
    """Inside, pretrained networks are built with random weights, and no file is looked for or downloaded."""
    gmflow = GMFlow.__init__

    def build_gmflow(self: GMFlow, weights: Path | None = None, random_weights: bool = False) -> None:
        gmflow(self, random_weights=True)

    def build_raft(self: RAFT, size: Literal["small", "large"] = "large", weights: Path | None = None) -> None:
        net = {"small": raft_small, "large": raft_large}[size](weights=None)
        self._build(size, net.state_dict(), Path("random weights"))

    def build_lpips(self: LPIPSDistance, net: str, weights: Path | None = None) -> None:
        nn.Module.__init__(self)
        self.net = lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)
        self.requires_grad_(False).eval()

    def build_vgg(self: VGGFeatures, weights: Path | None = None) -> None:
        nn.Module.__init__(self)
        layers = list(vgg16(weights=None).features.children())
        self.features = nn.Sequential(*layers[: self.ENDS[-1] + 1])
        self.mean, self.std = nn.Buffer(torch.zeros(3, 1, 1)), nn.Buffer(torch.ones(3, 1, 1))
        self.requires_grad_(False).eval()

    def dis_flow(self: DIS, current: Tensor, previous: Tensor) -> Tensor:  # OpenCV's, in the memory of the CPU
        return current.new_empty(len(current), 2, *current.shape[-2:])

    with ExitStack() as stack:
        for cls, name, function in (
            (GMFlow, "__init__", build_gmflow),
            (RAFT, "__init__", build_raft),
            (LPIPSDistance, "__init__", build_lpips),
            (VGGFeatures, "__init__", build_vgg),
            (DIS, "forward", dis_flow),
        ):
            stack.enter_context(patch.object(cls, name, function))
        stack.enter_context(warnings.catch_warnings(action="ignore"))  # lpips calls torchvision by a deprecated name
        yield


class StepCounter:
    """Counts the memory of training steps of one recipe, of any number of clips and frames.

    Args:
        config: the options. No weights are read.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.image_size = config.model.options["net"].options["image_size"]
        self.fake = FakeTensorMode()
        with self.fake, without_weight_files():
            self.recipe: Recipe = config.model.build().train()
            for p in trainable(self.recipe):
                p.grad = torch.empty_like(p)  # several processes, and accumulation, hold them all the time

    def count(
        self, clips: int, frames: int, amp: Amp = None, checkpointing: Mapping[str, bool] | None = None
    ) -> Memory:
        """The memory of a step, in the phase of the run with all loss terms.

        Args:
            clips: of the batch.
            frames: of each clip.
            amp: the precision, as ``train.amp``.
            checkpointing: options of :func:`checkpoint_options`; by default those of the config.
        """
        for option, on in (checkpointing or {}).items():
            owner, name = option.split(".")[-2:]
            setattr(self.recipe.net if owner == "model" else getattr(self.recipe, owner), name, on)
        options = self.config.train.model_copy(update={"amp": amp})
        with self.fake, without_weight_files(), autocast_as_on_cuda():
            batch = fake_batch(self.recipe, clips, frames, self.image_size)
            with LiveBytes() as live:
                live.add_batch(batch)
                run_step(self.recipe, options, batch)
        trained = size_of(trainable(self.recipe))
        average = size_of(trainable(self.recipe.net)) if self.config.train.ema else 0
        everything = size_of([*self.recipe.parameters(), *self.recipe.buffers()])
        return Memory(trained, trained, 2 * trained, average, everything - trained, live.peak, live.shared)


def fake_batch(recipe: Recipe, clips: int, frames: int, size: int) -> Batch:
    """A batch of no data, as the loader gives it."""
    batch = {"gt": torch.empty(clips, frames, 3, size, size), "name": [""] * clips}
    if recipe.needs_lq:
        scale = getattr(recipe, "scale", 4)
        batch["lq"] = torch.empty(clips, frames, 3, size // scale, size // scale)
    return batch


def run_step(recipe: Recipe, options: TrainOptions, batch: Batch) -> None:
    """Forward and backward passes of a step, as in :func:`keep.training.trainer.train_step`."""
    phases = recipe.losses(batch, step=max(recipe.phases().values()))
    while True:
        with autocast(options, CPU):
            phase = next(phases, None)
        if phase is None:
            return
        torch.stack([term.float() for term in phase[1].values()]).sum().backward()


def size_of(tensors: list[Any]) -> int:
    """Bytes of all tensors."""
    return sum(t.numel() * t.element_size() for t in tensors)
