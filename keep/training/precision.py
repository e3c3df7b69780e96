"""Precision and speed of a run: autocast, loss scaling, TF32, channels-last, compiled networks."""

from collections.abc import Sequence

import torch
import torch._functorch.config as functorch
import torch.nn as nn

from keep.config.schema import TrainOptions
from keep.kernels.norm_layers import fuse_norms
from keep.models.base import Recipe
from keep.training.frozen_weights import cast_frozen_weights_once
from keep.utils.dtypes import parse_dtype
from keep.utils.errors import UserError, nearest
from keep.utils.logging import log


def autocast(options: TrainOptions, device: torch.device) -> torch.autocast:
    """The context for forward passes in the run's precision; backward passes, outside, follow it."""
    dtype = parse_dtype(options.amp) if options.amp else None
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def make_scaler(options: TrainOptions, device: torch.device) -> torch.amp.GradScaler:
    """Loss scaling for float16, whose gradients would underflow; disabled for other precisions."""
    return torch.amp.GradScaler(device.type, enabled=options.amp == "fp16")


def prepare_networks(recipe: nn.Module, options: TrainOptions, device: torch.device) -> None:
    """Set the memory layout of the recipe's networks, and the precision of matrix products.

    Args:
        recipe: the networks.
        options: the options of training.
        device: where they run.
    """
    warn_of_slow_precision(options.amp, device)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if options.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = options.tf32
        if options.fused_norms:
            fuse_norms(recipe, device)
    if options.amp:
        cast_frozen_weights_once(recipe)
    if options.channels_last:
        to_channels_last(recipe)


def warn_of_slow_precision(amp: str | None, device: torch.device) -> None:
    """Warn of a precision that is slower than float32 on this processor."""
    if device.type != "cpu" or amp is None:
        return
    instructions = torch.backends.cpu.get_cpu_capability()
    if amp == "fp16":
        log.warning(
            "warning: train.amp: float16 on a CPU takes about ten times as long as float32; set train.amp: null"
        )
    elif instructions in ("AVX2", "NO AVX"):
        log.warning(
            f"warning: train.amp: this processor has no bfloat16 instructions ({instructions}); emulating them "
            "takes several times as long as float32; set train.amp: null"
        )


def compile_networks(recipe: Recipe, names: Sequence[str]) -> None:
    """Compile networks of the recipe in place, when they are first called.

    Raises:
        UserError: the recipe has no such network, or one that holds others and is never called itself.
    """
    known = {name: module for name, module in recipe.named_modules() if name}
    for name in names:
        if name not in known:
            parts = [k for k in known if k.count(".") < 2]
            raise UserError(f"train.compile: the model has no network {name!r}{nearest(name, parts)}")
        if type(known[name]).forward is nn.Module.forward:
            own = ", ".join(f"{name}.{child}" for child, _ in known[name].named_children())
            raise UserError(f"train.compile: {name} is never called itself" + f"; name its parts: {own}" * bool(own))
    # By default a compiled backward pass reuses the memory of what the forward pass kept, so it can run only once.
    functorch.donated_buffer = not recipe.keeps_graph
    for name in names:
        known[name].compile()


def to_channels_last(module: nn.Module) -> None:
    """Store the weights of 2-D and 3-D convolutions in channels-last order; their outputs follow."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in module.parameters():
        if parameter.dim() in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.dim()])
