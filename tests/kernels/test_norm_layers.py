"""GroupNorm modules that replace PyTorch's: same weights and names, and where no kernel runs, the same numbers."""

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from networks import TINY, build

from keep.archs.blocks import GroupNormSiLU, ResBlock
from keep.config.schema import TrainOptions
from keep.kernels import norm_layers
from keep.kernels.norm_layers import FusedGroupNorm, fuse_norms, kernel_device
from keep.training import optimizers  # noqa: F401  (registers the default)
from keep.training.precision import prepare_networks
from keep.training.schedules import Constant

CPU = torch.device("cpu")


def norms(net: nn.Module) -> list[nn.Module]:
    return [m for m in net.modules() if isinstance(m, nn.GroupNorm)]


def test_names_and_weights_stay() -> None:
    net = build("KEEP", **TINY)
    net.generator.requires_grad_(False)
    before = dict(net.named_parameters())
    state, count = list(net.state_dict()), len(norms(net))
    fuse_norms(net, CPU)
    after = dict(net.named_parameters())
    assert list(before) == list(after)
    assert all(before[k] is after[k] for k in before)  # so optimizer, average and requires_grad stay
    assert list(net.state_dict()) == state
    assert len(norms(net)) == count
    assert all(type(m) is FusedGroupNorm for m in norms(net))
    assert {m.silu for m in norms(net)} == {False, True}


def test_silu_follows_the_norm_as_before() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 8, 5, 4)
    norm = GroupNormSiLU(4, 8, eps=1e-6)
    expected = F.silu(F.group_norm(x, 4, norm.weight, norm.bias, 1e-6))
    assert torch.equal(norm(x), expected)
    with torch.no_grad():
        assert torch.equal(norm(x), expected)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_without_a_kernel_the_numbers_are_those_of_pytorch(layout) -> None:
    torch.manual_seed(0)
    block = nn.Sequential(ResBlock(8, 8, 4)).to(memory_format=layout)
    x = torch.randn(2, 8, 6, 6).contiguous(memory_format=layout)
    expected = [block(x), *torch.autograd.grad(block(x).square().sum(), list(block.parameters()))]
    fuse_norms(block, CPU)
    found = [block(x), *torch.autograd.grad(block(x).square().sum(), list(block.parameters()))]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_norms_without_weights_and_subclasses_stay() -> None:
    class Own(nn.GroupNorm):
        pass

    net = nn.Sequential(nn.GroupNorm(2, 4, affine=False), Own(2, 4))
    fuse_norms(net, CPU)
    assert [type(m) for m in net] == [nn.GroupNorm, Own]


@pytest.fixture
def tf32():
    before = torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize(("kind", "on", "expected"), [("cpu", True, 0), ("cuda", True, 2), ("cuda", False, 0)])
def test_training_chooses_them_on_cuda(kind, on, expected, tf32) -> None:
    options = TrainOptions(iters=1, schedule={"type": Constant.__name__}, fused_norms=on)  # type: ignore[arg-type]
    net = nn.Sequential(ResBlock(8, 8, 4))
    prepare_networks(net, options, torch.device(kind))
    assert sum(isinstance(m, FusedGroupNorm) for m in net.modules()) == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="Triton runs here")
def test_where_triton_does_not_run_one_warning_is_given(caplog) -> None:
    norm_layers._kernel_runs.cache_clear()
    with caplog.at_level("WARNING", "keep"):
        assert kernel_device(torch.device("cuda")) is None
        assert kernel_device(torch.device("cuda")) is None
        assert kernel_device(CPU) is None
    assert [r.message.startswith("warning: Triton does not run on cuda") for r in caplog.records] == [True]
