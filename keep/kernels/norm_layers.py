"""GroupNorm modules that run :mod:`keep.kernels.group_norm`, and how they replace PyTorch's in a network."""

import os
from contextlib import nullcontext
from functools import cache

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from keep.archs.blocks import GroupNormSiLU
from keep.utils.dtypes import autocast_dtype
from keep.utils.logging import log

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class FusedGroupNorm(nn.GroupNorm):
    """GroupNorm, and SiLU if the replaced norm has it, in the precision and layout of the convolutions around it.

    (N, C, H, W) → the same shape; under autocast in its type, else in that of the weights. Statistics are float32.
    Channels-last images go through one kernel, without a copy. Others, and all where no kernel runs, go through
    PyTorch's, without autocast's detour through float32.

    Args:
        norm: the norm to replace, with weights; they are shared.
        device: type of the device where the kernel runs; None: nowhere.
    """

    def __init__(self, norm: nn.GroupNorm, device: str | None = None) -> None:
        super().__init__(norm.num_groups, norm.num_channels, norm.eps, device="meta")
        self.weight, self.bias = norm.weight, norm.bias
        self.silu, self.device = isinstance(norm, GroupNormSiLU), device
        if device is not None:
            from keep.kernels.group_norm import normalise  # needs Triton

            self.normalise = normalise
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        autocast = autocast_dtype(kind)
        dtype = autocast or self.weight.dtype
        if kind == self.device and fits(x):
            return self.normalise(x, self.weight, self.bias, self.num_groups, self.eps, self.silu, dtype)
        with torch.autocast(kind, enabled=False) if autocast else nullcontext():
            y = F.group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)
            return (F.silu(y, inplace=not torch.is_grad_enabled()) if self.silu else y).to(dtype)


def fits(x: Tensor) -> bool:
    """Whether the kernel takes this tensor."""
    return (
        x.dim() == 4 and x.dtype in DTYPES and x.is_contiguous(memory_format=torch.channels_last) and x.numel() > 0
    )  # fmt: skip


def fuse_norms(network: nn.Module, device: torch.device) -> None:
    """Replace the GroupNorms inside ``network`` by :class:`FusedGroupNorm`; weights keep their names and stay shared.

    Args:
        network: its submodules are replaced, not the module itself.
        device: where it will run.
    """
    kernel = kernel_device(device)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.GroupNorm) and type(child) in (nn.GroupNorm, GroupNormSiLU) and child.affine:
                setattr(module, name, FusedGroupNorm(child, kernel))


def kernel_device(device: torch.device) -> str | None:
    """The type of ``device`` if the kernel runs there, else None. On CUDA warns once if it does not."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    return device.type if (device.type == "cuda" or interpreted) and _kernel_runs(device) else None


@cache
def _kernel_runs(device: torch.device) -> bool:
    try:
        from keep.kernels.group_norm import normalise

        x = torch.ones(1, 8, 1, 1, device=device)
        normalise(x, x.flatten(), x.flatten(), 2, 1e-6, True, x.dtype)
    except Exception as error:  # of Triton, of its C compiler or of the driver
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        log.warning(
            f"warning: Triton does not run on {device} ({reason}): GroupNorm copies every channels-last image; "
            "pip install triton, on Windows triton-windows"
        )
        return False
    return True
