"""RAFT, as torchvision ships it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from keep.config.registry import FLOWS
from keep.utils.downloads import torchvision_weights
from keep.utils.errors import UserError
from keep.utils.weight_files import fill, load_network

FILES = {"small": "raft_small_C_T_V2-01064c6d.pth", "large": "raft_large_C_T_SKHT_V2-ff5fadd5.pth"}
SMALLEST_SIDE = 128  # four levels of correlation at 1/8 of the resolution


@FLOWS.register("raft")
class RAFT(nn.Module):
    """RAFT (Teed and Deng, ECCV 2020) of torchvision, frozen.

    Args:
        size: which of torchvision's two networks.
        weights: a file with the state dict of that network; by default torchvision's own file, downloaded once.

    Attributes:
        files: the file that the weights were read from.
    """

    def __init__(self, size: Literal["small", "large"] = "large", weights: Path | None = None) -> None:
        path = torchvision_weights(FILES[size], weights)
        self._build(size, load_network(path), path)
        self.files = (path,)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], size: Literal["small", "large"], source: Path) -> Self:
        """The network with weights that are already in memory.

        Args:
            state: the state dict of torchvision's network.
            size: which of torchvision's two networks.
            source: the file that the weights come from, for messages.
        """
        raft = cls.__new__(cls)
        raft._build(size, state, source)
        raft.files = ()
        return raft

    def _build(self, size: Literal["small", "large"], state: Mapping[str, Tensor], source: Path) -> None:
        super().__init__()
        try:
            from torchvision.models.optical_flow import raft_large, raft_small

            from keep.flow.correlation import CORRELATIONS, Correlation
        except ImportError as error:
            raise UserError("flow estimator 'raft' needs torchvision: pip install torchvision") from error
        self.name = f"RAFT-{size}"
        with torch.random.fork_rng(devices=[]):  # the random weights are replaced: do not advance the run's generator
            build = {"small": raft_small, "large": raft_large}[size]
            self.net = build(weights=None, corr_block=Correlation(**CORRELATIONS[size]))
        fill(self.net, state, source)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: batch statistics are those of the weights."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        """(N, 3, H, W) RGB in [-1, 1], twice → flow current→previous (N, 2, H, W), float32, in pixels."""
        height, width = current.shape[-2:]
        bottom, right = (max(SMALLEST_SIDE, -(-side // 8) * 8) - side for side in (height, width))
        current, previous = (F.pad(f.float(), (0, right, 0, bottom), mode="replicate") for f in (current, previous))
        with torch.autocast(current.device.type, enabled=False):  # matching in half precision loses sub-pixel motion
            flow = self.net(current, previous)[-1]
        return flow[..., :height, :width].contiguous()
