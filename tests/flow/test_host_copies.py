"""Flow estimators make no tensor on the CPU while they run on another device; the device `meta` stands for the GPU."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from keep.flow.correlation import CORRELATIONS, Correlation
from keep.flow.gmflow import GMFlow

META = torch.device("meta")


class Watch(TorchDispatchMode):
    """Notes every operation that makes a tensor on the CPU, and every copy from there."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        if any(x.device.type == "cpu" and x.dim() for x in tensors):
            self.found.append(str(func))
        return result


def test_the_watch_sees_a_grid_made_on_the_cpu():
    with Watch() as watch:
        torch.ones(4, device=META).add_(torch.arange(4).to(META))
    assert watch.found == ["aten.arange.default"]


@pytest.mark.parametrize("features", [torch.float32, torch.bfloat16])
def test_gmflow(features):
    net = GMFlow(random_weights=True).eval().to(META)
    net.features_in(features)
    frames = torch.zeros(4, 3, 64, 96, device=META)
    with Watch() as watch:
        flow = net._flow(net._features(frames))  # `forward` without autocast, which does not know this device
    assert (flow.device.type, flow.dtype, flow.shape) == ("meta", torch.float32, (2, 2, 64, 96))
    assert watch.found == []


def test_gmflow_makes_its_grids_once():
    net, frames = GMFlow(random_weights=True).eval(), torch.rand(1, 3, 3, 32, 64)
    expected = net.clip(frames)
    kept = net.grids.of(torch.zeros(1, 128, 4, 8), torch.float32)
    with Watch() as watch:
        again = net.clip(frames)
    assert torch.equal(again, expected)
    assert not {name for name in watch.found if "arange" in name or "roll" in name}
    assert net.grids.of(torch.zeros(1, 128, 4, 8), torch.float32) is kept


@pytest.mark.parametrize("size", ["small", "large"])
def test_correlation_of_raft(size):
    block = Correlation(**CORRELATIONS[size])
    block.build_pyramid(*torch.zeros(2, 1, 8, 16, 16, device=META))
    with Watch() as watch:
        found = block.index_pyramid(torch.zeros(1, 2, 16, 16, device=META))
    assert found.shape == (1, block.out_channels, 16, 16)
    assert watch.found == []
