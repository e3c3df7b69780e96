"""Speed and precision of a run: autocast, loss scaling, TF32, channels-last, compiled networks."""

from collections.abc import Iterator
from typing import Any, TypeVar

import torch
import torch.nn as nn

from keep.config.schema import TrainOptions
from keep.utils.dtypes import parse_dtype
from keep.utils.errors import UserError, nearest
from keep.utils.logging import log

T = TypeVar("T")


def prepare_networks(recipe: nn.Module, options: TrainOptions, device: torch.device) -> None:
    """Memory layout and compilation of the recipe's networks, and the precision of float32 products.

    Raises:
        UserError: ``train.compile`` names a network that the recipe does not have.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if options.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = options.tf32
    elif options.amp == "bf16" and (instructions := torch.backends.cpu.get_cpu_capability()) in ("AVX2", "NO AVX"):
        log.warning(
            f"warning: train.amp: this processor has no bfloat16 instructions ({instructions}), and several times the "
            "time of float32 goes into imitating them; set train.amp: null"
        )
    if options.channels_last:
        to_channels_last(recipe)
    known = dict(recipe.named_modules())
    for name in options.compile:
        if name not in known or not name:
            parts = [k for k in known if k and k.count(".") < 2]
            raise UserError(f"train.compile: the model has no network {name!r}{nearest(name, parts)}")
        known[name].compile()


def to_channels_last(module: nn.Module) -> None:
    """Weights of 2-D and 3-D convolutions in channels-last order; what they compute follows them."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in module.parameters():
        if parameter.dim() in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.dim()])


def make_scaler(options: TrainOptions, device: torch.device) -> torch.amp.GradScaler:
    """float16 gradients would underflow unscaled; for the other precisions it does nothing."""
    return torch.amp.GradScaler(device.type, enabled=options.amp == "fp16")


def autocast(phases: Iterator[T], options: TrainOptions, device: torch.device) -> Iterator[T]:
    """The recipe's phases, each computed in the run's precision; the backward pass, outside, follows it."""
    dtype: Any = parse_dtype(options.amp) if options.amp else None
    done = object()
    while True:
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            phase = next(phases, done)
        if phase is done:
            return
        yield phase  # pyright: ignore[reportReturnType]
