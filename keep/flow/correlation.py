"""RAFT's correlation as torchvision computes it, without copies from host to device. It needs torchvision."""

import torch
from torch import Tensor
from torchvision.models.optical_flow.raft import CorrBlock

CORRELATIONS = {"small": {"num_levels": 4, "radius": 3}, "large": {"num_levels": 4, "radius": 4}}
"""Arguments of :class:`Correlation` in torchvision's two networks."""


class Correlation(CorrBlock):
    """torchvision's block makes its grid of neighbours on the CPU at every update, 12 times a call; this one does not.

    Two copies a call are left: torchvision's forward pass makes its coordinates on the CPU.
    """

    def index_pyramid(self, centroids_coords: Tensor) -> Tensor:
        with torch.device(centroids_coords.device):
            return super().index_pyramid(centroids_coords)
