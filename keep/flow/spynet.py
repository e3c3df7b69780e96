"""SPyNet (Ranjan and Black, CVPR 2017, arXiv 1611.00850): flow from coarse to fine, one small network for each level.

Names of modules are those of BasicSR's ``SpyNet``, so its files load.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from keep.config.registry import FLOWS
from keep.flow.warp import sample
from keep.utils.weight_files import fill, load_network

LEVELS = 6
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, RGB in [0, 1]


class Level(nn.Module):
    """The network of one level: (N, 8, H, W), both frames and the flow so far → correction of the flow (N, 2, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((8, 32), (32, 64), (64, 32), (32, 16)):
            layers += [nn.Conv2d(inputs, outputs, 7, padding=3), nn.ReLU()]
        self.basic_module = nn.Sequential(*layers, nn.Conv2d(16, 2, 7, padding=3))

    def forward(self, x: Tensor) -> Tensor:
        return self.basic_module(x.to(next(self.parameters()).dtype)).float()


class SpyNet(nn.Module):
    """SPyNet, 1.44 M parameters; random until a file is loaded. It can train, as a part of a network.

    Args:
        weights: a file with BasicSR's or mmagic's names.

    Attributes:
        files: the file that the weights were read from.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: Path | None = None) -> None:
        super().__init__()
        self.basic_module = nn.ModuleList(Level() for _ in range(LEVELS))
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)
        self.files: tuple[Path, ...] = ()
        if weights is not None:
            fill(self, from_public(load_network(weights)), weights)
            self.files = (weights,)

    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        """(N, 3, H, W) RGB in [-1, 1], twice → flow current→previous (N, 2, H, W), float32, in pixels.

        Frames are resized to sides that are multiples of 32.
        """
        height, width = current.shape[-2:]
        size = [-(-side // 32) * 32 for side in (height, width)]
        with torch.autocast(current.device.type, enabled=False):  # half precision loses sub-pixel motion
            frames = [F.interpolate(f.float(), size, mode="bilinear") for f in (current, previous)]
            flow = self._estimate(*(((f + 1) / 2 - self.mean.float()) / self.std.float() for f in frames))
            flow = F.interpolate(flow, (height, width), mode="bilinear")
            return flow * flow.new_tensor([width / size[1], height / size[0]]).view(2, 1, 1)

    def _estimate(self, current: Tensor, previous: Tensor) -> Tensor:
        """Normalised frames with sides of multiples of 32 → flow."""
        pyramid = [(current, previous)]
        for _ in range(LEVELS - 1):
            current, previous = (F.avg_pool2d(f, 2) for f in pyramid[-1])
            pyramid.append((current, previous))
        n, _, h, w = current.shape
        flow = current.new_zeros(n, 2, h, w)
        for level, (now, before) in zip(self.basic_module, reversed(pyramid), strict=True):
            if now is not current:
                flow = 2 * F.interpolate(flow, now.shape[-2:], mode="bilinear", align_corners=True)
            flow = flow + level(torch.cat([now, sample(before, flow, "border"), flow], 1))
        return flow


@FLOWS.register("spynet")
class FrozenSpyNet(SpyNet):
    """SPyNet as an estimator of flow: frozen, with the weights of a file.

    Args:
        weights: a file with BasicSR's or mmagic's names.
    """

    def __init__(self, weights: Path) -> None:
        with torch.random.fork_rng(devices=[]):  # the random weights are replaced: do not advance the run's generator
            super().__init__(weights)
        self.name = "SPyNet"
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        """(N, 3, H, W) RGB in [-1, 1], twice → flow current→previous (N, 2, H, W), float32, in pixels."""
        return super().forward(current, previous)


def from_public(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of mmagic's SPyNet (``basic_module.0.basic_module.3.conv.weight``) → ours; BasicSR's are the same as ours.

    The means and deviations that both store are dropped: they are constants.
    """
    found = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[-1] in ("mean", "std"):
            continue
        if (
            parts[-2:-1] == ["conv"] and parts[-3:-2] and parts[-3].isdigit()
        ):  # mmagic counts the layers without their activations
            parts[-3:-1] = [str(2 * int(parts[-3]))]
        found[".".join(parts)] = value
    return found
