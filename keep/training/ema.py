"""Exponential moving average of the trained weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn as nn


class EMA:
    """Averages the parameters of ``net`` that require gradients; its other tensors are not averaged.

    Update n uses the decay min(decay, (1 + n) / (10 + n)), so that the initial weights soon lose their influence.

    Args:
        net: the network.
        decay: share of the old average kept at each update, in [0, 1).
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self._live = {k: p for k, p in net.named_parameters() if p.requires_grad}
        self._average = {k: p.detach().clone() for k, p in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the current weights. Call after each optimizer step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        torch._foreach_lerp_(list(self._average.values()), list(self._live.values()), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the network has the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for key, parameter in self._live.items():
            self._average[key], parameter.data = parameter.data, self._average[key]

    def state_dict(self) -> dict[str, torch.Tensor | int]:
        return {"updates": self.updates, **self._average}

    def load_state_dict(self, state: dict[str, torch.Tensor | int]) -> None:
        self.updates = int(state["updates"])
        for key, average in self._average.items():
            value = state[key]
            assert isinstance(value, torch.Tensor)
            average.copy_(value)
