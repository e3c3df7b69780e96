"""Parts of an accelerated network that stay float32 when the others are in reduced precision."""

import torch
import torch.nn as nn
from torch import Tensor

from keep.archs.keep import KEEP
from keep.flow.gmflow import GMFlow


def keep_float32_parts(fast: KEEP) -> None:
    """Return the parts that need float32 to it, and convert the tensors at their borders."""
    fast.kalman_filter.float()
    for encoder in (fast.lq_encoder, fast.hq_encoder):
        encoder.register_forward_pre_hook(_to_weight_dtype)
        _end_in_float32(*encoder.blocks[-2:])
    fast.code_transformer.register_forward_pre_hook(_to_weight_dtype)
    _end_in_float32(fast.code_transformer.idx_pred_layer)
    _end_in_float32(*fast.generator.blocks[-2:])


def reduce_flow(fast: KEEP, dtype: torch.dtype) -> None:
    """Let GMFlow compute its features in bfloat16 if ``dtype`` is that; positions stay float32.

    In float16 the flow stays float32: CPUs without float16 instructions emulate them, which is several times slower.
    """
    if dtype == torch.bfloat16 and isinstance(fast.flownet, GMFlow):
        fast.flownet.features_in(dtype)


def _end_in_float32(first: nn.Module, *others: nn.Module) -> None:
    """Run the last modules of a sub-network in float32: the input of the first is converted."""
    first.register_forward_pre_hook(_to_float32)
    for module in (first, *others):
        module.float()


def _to_float32(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
    return (args[0].float(),)


def _to_weight_dtype(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
    return (args[0].to(next(module.parameters()).dtype),)
