"""LPIPS as a metric."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from keep.config.registry import METRICS
from keep.losses.perceptual import LPIPSDistance
from keep.metrics.base import Clip, Metric
from keep.utils.errors import UserError

AT_ONCE = 8
SMALLEST_SIDE = 32


@METRICS.register()
class LPIPS(Metric):
    """Learned perceptual distance, LPIPS v0.1 (Zhang et al., CVPR 2018); its name includes the network.

    On whole frames of at least 32×32, scaled to [-1, 1]; equal to the package ``lpips``.

    Args:
        net: the backbone; alex is the usual one to report.
        weights: torchvision's file of that backbone; null searches the caches, then downloads it.
    """

    def __init__(self, net: Literal["alex", "vgg", "squeeze"] = "alex", weights: Path | None = None) -> None:
        self.name, self.higher_is_better = f"LPIPS-{net}", False
        self.distance = LPIPSDistance(net, weights)

    def measure(self, output: Clip, target: Clip) -> np.ndarray:
        return distances(self.distance, output.frames, target.frames)


def distances(network: LPIPSDistance, a: Tensor, b: Tensor) -> np.ndarray:
    """LPIPS between two sets of frames, uint8 (N, 3, H, W) each → float64 (N,); computed on the device of ``a``.

    Raises:
        UserError: frames smaller than 32×32.
    """
    pairs = zip(_pieces(network, a), _pieces(network, b.to(a.device)), strict=True)
    return torch.cat([network(x, y) for x, y in pairs]).double().cpu().numpy()


def steps(network: LPIPSDistance, frames: Tensor) -> np.ndarray:
    """LPIPS of neighbouring frames, uint8 (T, 3, H, W) → float64 (T - 1,); every frame is encoded once.

    Raises:
        UserError: frames smaller than 32×32.
    """
    import lpips

    net, found, last = network.net, [], None
    for piece in _pieces(network, frames):
        features = [lpips.normalize_tensor(f) for f in net.net(net.scaling_layer(piece))]
        joined = features if last is None else [torch.cat(pair) for pair in zip(last, features, strict=True)]
        heads = zip(net.lins, joined, strict=True)
        found.append(torch.stack([head(f.diff(dim=0).square()).mean((1, 2, 3)) for head, f in heads]).sum(0))
        last = [f[-1:] for f in features]
    return torch.cat(found).double().cpu().numpy()


def _pieces(network: LPIPSDistance, frames: Tensor) -> Iterator[Tensor]:
    """The frames in [-1, 1], in small batches; the network moves to their device."""
    height, width = frames.shape[-2:]
    if min(height, width) < SMALLEST_SIDE:
        raise UserError(f"LPIPS needs frames of at least {SMALLEST_SIDE}×{SMALLEST_SIDE}, not {width}×{height}")
    network.to(frames.device)
    for piece in frames.split(AT_ONCE if frames.is_cuda else 1):  # one at a time is faster on a CPU
        yield piece.float() / 127.5 - 1
