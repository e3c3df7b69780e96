"""Differences of two tensors of equal shape, as means over all elements."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from keep.config.registry import LOSSES
from keep.utils.ranges import Factor, Weight


def charbonnier(difference: Tensor, eps: float = 1e-3) -> Tensor:
    """sqrt(d² + eps²), element by element: L1 far from zero, smooth near it."""
    return torch.sqrt(difference.square() + eps**2)


@LOSSES.register()
class L1(nn.Module):
    """Mean absolute difference: 𝓛₁ of eq. (3) and (8).

    Args:
        weight: factor of this term in the total.
    """

    def __init__(self, weight: Weight = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Two tensors of equal shape → scalar."""
        return F.l1_loss(output, target)


@LOSSES.register()
class MSE(nn.Module):
    """Mean squared difference: the feature term 𝓛₂ of eq. (4).

    Args:
        weight: factor of this term in the total.
    """

    def __init__(self, weight: Weight = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Two tensors of equal shape → scalar."""
        return F.mse_loss(output, target)


@LOSSES.register()
class Charbonnier(nn.Module):
    """Mean of sqrt(difference² + eps²).

    Args:
        weight: factor of this term in the total.
        eps: difference below which the term is quadratic.
    """

    def __init__(self, weight: Weight = 1.0, eps: Factor = 1e-3) -> None:
        super().__init__()
        self.weight = weight
        self.eps = eps

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Two tensors of equal shape → scalar."""
        return charbonnier(output - target, self.eps).mean()
