"""Optimizers: each takes its options, and then makes a torch optimizer of groups of parameters."""

from collections.abc import Sequence
from typing import Any

import torch

from keep.config.registry import OPTIMIZERS
from keep.utils.ranges import Decay, Rate, Weight

Groups = Sequence[dict[str, Any]]
"""Parameter groups of ``torch.optim``. The trainer sets the ``lr`` of each before every step, from the option."""


@OPTIMIZERS.register()
class Adam:
    """Adam; its weight decay is an L2 penalty."""

    kind: Any = torch.optim.Adam

    def __init__(
        self,
        lr: Rate = 2e-4,
        betas: tuple[Decay, Decay] = (0.9, 0.99),
        weight_decay: Weight = 0.0,
        fused: bool | None = None,
    ) -> None:
        """
        Args:
            lr: learning rate before the schedule.
            betas: running-average coefficients.
            weight_decay: L2 penalty (Adam) or decoupled decay (AdamW).
            fused: update all weights in one kernel: fewer launches on a GPU. Results differ by rounding only. null: on
                CUDA.
        """
        self.lr, self.fused = lr, fused
        self.options = {"lr": lr, "betas": betas, "weight_decay": weight_decay}

    def __call__(self, groups: Groups) -> torch.optim.Optimizer:
        """The optimizer of these parameters."""
        fused = self.fused
        if fused is None:
            fused = all(p.is_cuda for group in groups for p in group["params"])
        return self.kind(groups, **self.options, fused=fused or None)  # None: as PyTorch chooses without


@OPTIMIZERS.register()
class AdamW(Adam):
    """Adam with decoupled weight decay."""

    kind = torch.optim.AdamW
