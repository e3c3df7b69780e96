"""Precision and speed of a run: autocast, loss scaling, TF32, channels-last, compiled networks."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn as nn

from keep.config.schema import TrainOptions
from keep.kernels.norm_layers import fuse_norms
from keep.models.base import Recipe
from keep.training.frozen_weights import cast_frozen_weights_once
from keep.utils.dtypes import parse_dtype
from keep.utils.errors import UserError, nearest
from keep.utils.logging import log

TINY = 32
"""Side in pixels of clips of which the last layer of the temporal discriminator gets one pixel. There the bfloat16
gradient of its 5×5 kernel is wrong in oneDNN on processors with AMX (PyTorch 2.15). Only tests train on such clips."""


def autocast(options: TrainOptions, device: torch.device) -> torch.autocast:
    """The context for forward passes in the run's precision; backward passes, outside, follow it."""
    dtype = parse_dtype(options.amp) if options.amp else None
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def make_scaler(options: TrainOptions, device: torch.device) -> torch.amp.GradScaler:
    """Loss scaling for float16, whose gradients would underflow; disabled for other precisions."""
    return torch.amp.GradScaler(device.type, enabled=options.amp == "fp16")


def prepare_networks(recipe: nn.Module, options: TrainOptions, device: torch.device, size: int | None = None) -> None:
    """Set memory layout and compilation of the recipe's networks, and the precision of matrix products.

    Args:
        recipe: the networks.
        options: the options of training.
        device: where they run.
        size: side of the training clips in pixels, where the options say it.

    Raises:
        UserError: ``train.compile`` names a network that the recipe does not have.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if options.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = options.tf32
        if options.fused_norms:
            fuse_norms(recipe, device)
    elif options.amp == "bf16":
        instructions = torch.backends.cpu.get_cpu_capability()
        if instructions in ("AVX2", "NO AVX"):
            log.warning(
                f"warning: train.amp: this processor has no bfloat16 instructions ({instructions}); emulating them "
                "takes several times as long as float32; set train.amp: null"
            )
        for network in recipe.children() if size is not None and size <= TINY else ():
            if any(isinstance(module, nn.Conv3d) for module in network.modules()):
                run_in_float32(network)
    if options.amp:
        cast_frozen_weights_once(recipe)
    if options.channels_last:
        to_channels_last(recipe)
    known = dict(recipe.named_modules())
    for name in options.compile:
        if name not in known or not name:
            parts = [k for k in known if k and k.count(".") < 2]
            raise UserError(f"train.compile: the model has no network {name!r}{nearest(name, parts)}")
        known[name].compile()


def check_compile(recipe: Recipe, names: Iterable[str]) -> None:
    """Raise UserError if ``train.compile`` names a network that crashes when compiled, or a part or owner of one."""
    for name in names:
        for network, reason in recipe.uncompilable().items():
            if f"{network}.".startswith(f"{name}.") or name.startswith(f"{network}."):
                raise UserError(f"train.compile: {name} cannot be compiled in {type(recipe).__name__}: {reason}")


def to_channels_last(module: nn.Module) -> None:
    """Store the weights of 2-D and 3-D convolutions in channels-last order; their outputs follow."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in module.parameters():
        if parameter.dim() in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.dim()])


def run_in_float32(network: nn.Module) -> None:
    """Run a network outside autocast, on float32 inputs."""
    no_autocast = torch.autocast("cpu", enabled=False)

    def enter(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        no_autocast.__enter__()
        return tuple(x.float() for x in inputs)

    def leave(*_: Any) -> None:
        no_autocast.__exit__(None, None, None)

    network.register_forward_pre_hook(enter)
    network.register_forward_hook(leave, always_call=True)
