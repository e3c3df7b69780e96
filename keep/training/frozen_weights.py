"""Frozen weights under autocast: cast once, instead of in every call.

Autocast remembers the casts of weights that train, until it is left. It casts all others again in every call: in stage
III those of the generator and of E_H for every frame. Weights that stay float32 in memory are needed nevertheless: they
are saved.
"""

from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from keep.utils.dtypes import autocast_dtype


class Casts:
    """Copies of weights in another type, made again when a weight has changed or moved."""

    def __init__(self) -> None:
        self._copies: dict[str, tuple[object, Tensor]] = {}

    @torch.no_grad()
    def get(self, name: str, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """The copy of ``weight`` in ``dtype``."""
        key = (dtype, weight.device, weight.data_ptr(), weight._version)
        if name not in self._copies or self._copies[name][0] != key:
            self._copies[name] = key, weight.to(dtype)
        return self._copies[name][1]


class FrozenConv2d(nn.Conv2d):
    """A convolution with frozen weights.

    Args:
        conv: the module to replace; the weights are shared.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        names = (
            "in_channels",
            "out_channels",
            "kernel_size",
            "stride",
            "padding",
            "dilation",
            "groups",
            "padding_mode",
        )
        options: dict[str, Any] = {name: getattr(conv, name) for name in names}
        super().__init__(**options, bias=conv.bias is not None, device="meta")
        self.weight, self.bias, self.casts = conv.weight, conv.bias, Casts()
        self.train(conv.training)

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, *weights_for(self, self.casts, input.device.type))


class FrozenLinear(nn.Linear):
    """A linear layer with frozen weights.

    Args:
        linear: the module to replace; the weights are shared.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias, self.casts = linear.weight, linear.bias, Casts()
        self.train(linear.training)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, *weights_for(self, self.casts, input.device.type))


def weights_for(layer: nn.Conv2d | nn.Linear, casts: Casts, kind: str) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a layer; copies in autocast's type where autocast is on.

    A compiled network casts on its own, and a layer that trains after all needs autocast's cast for its gradient.
    """
    weight, bias = layer.weight, layer.bias
    dtype = autocast_dtype(kind)
    if torch.compiler.is_compiling() or weight.requires_grad or dtype is None:
        return weight, bias
    return casts.get("weight", weight, dtype), None if bias is None else casts.get("bias", bias, dtype)


def cast_frozen_weights_once(network: nn.Module) -> None:
    """Replace the frozen convolutions and linear layers inside ``network``.

    Weights keep their names and stay shared.
    """
    kinds = {nn.Conv2d: FrozenConv2d, nn.Linear: FrozenLinear}
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) in kinds and not any(p.requires_grad for p in child.parameters()):
                setattr(module, name, kinds[type(child)](child))
