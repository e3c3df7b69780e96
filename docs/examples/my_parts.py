"""A plugin with an arch and a loss, used by docs/examples/my_parts.yml."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from keep.config.registry import ARCHS, LOSSES


@ARCHS.register()
class EdgeDiscriminator(nn.Module):
    """Scores (N, 3, H, W) frames by their edges: logits (N, 1, h, w).

    Args:
        channels: width of the hidden layers.
    """

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        layers = [nn.Conv2d(6, channels, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(channels, 1, 4, 2, 1)]
        self.net = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        right, down = x.diff(dim=-1), x.diff(dim=-2)
        return self.net(torch.cat([F.pad(right, (0, 1)), F.pad(down, (0, 0, 0, 1))], dim=1))


@LOSSES.register()
class Huber(nn.Module):
    """Huber loss on pixels.

    Args:
        weight: factor of this term in the total.
        delta: difference at which the loss changes from quadratic to linear.
    """

    def __init__(self, weight: float = 1.0, delta: float = 0.1) -> None:
        super().__init__()
        self.weight, self.delta = weight, delta

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.huber_loss(output, target, delta=self.delta)
