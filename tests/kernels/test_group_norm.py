"""The GroupNorm kernels against float64: on a GPU with ``-m gpu --device cuda``; on a CPU in Triton's interpreter, in
which test_without_gpu.py runs this file.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from keep.archs.blocks import GroupNormSiLU, ResBlock
from keep.kernels.norm_layers import FusedGroupNorm, fuse_norms, kernel_device

pytestmark = pytest.mark.gpu
EPS = {torch.float32: 1.2e-7, torch.bfloat16: 7.8e-3, torch.float16: 9.8e-4}
"""Distance from 1 to the next number."""


@pytest.fixture
def where(device: torch.device) -> torch.device:
    """The device of a test, where the kernels run."""
    if kernel_device(device) is None:
        pytest.skip("the kernels need CUDA and Triton, or TRITON_INTERPRET=1")
    return device


def images(shape: tuple[int, ...], dtype: torch.dtype, where: torch.device, mean: float = 0.0) -> Tensor:
    """Channels-last images whose channels differ in mean and deviation."""
    torch.manual_seed(0)
    c = shape[1]
    x = torch.randn(shape) * (0.2 + torch.rand(1, c, 1, 1)) + torch.randn(1, c, 1, 1) + mean
    return x.to(where, dtype).contiguous(memory_format=torch.channels_last)


def run(x: Tensor, groups: int, silu: bool, exact: bool) -> tuple[Tensor, ...]:
    """The result, and the gradients of x, weight and bias: by the kernels, or in float64 by PyTorch."""
    from keep.kernels.group_norm import normalise

    torch.manual_seed(1)
    weight, bias, slope = torch.randn(x.shape[1]), torch.randn(x.shape[1]), torch.randn(x.shape).to(x.dtype)
    dtype = torch.float64 if exact else torch.float32
    leaves = [x.detach().to(dtype if exact else x.dtype), weight.to(x.device, dtype), bias.to(x.device, dtype)]
    leaves = [v.requires_grad_() for v in leaves]
    if exact:
        y = F.group_norm(leaves[0], groups, leaves[1], leaves[2], 1e-6)
        y = F.silu(y) if silu else y
    else:
        y = normalise(leaves[0], leaves[1], leaves[2], groups, 1e-6, silu, x.dtype)
    return y, *torch.autograd.grad(y, leaves, slope.to(x.device, y.dtype))


def check(x: Tensor, groups: int, silu: bool, float32: float = 1e-5) -> None:
    """Assert that all results are within rounding of the exact ones, relative to their largest value."""
    found, exact = run(x, groups, silu, exact=False), run(x, groups, silu, exact=True)
    assert found[0].dtype == found[1].dtype == x.dtype
    assert all(v.is_contiguous(memory_format=torch.channels_last) for v in found[:2])
    for result, expected, eps in zip(found, exact, [EPS[x.dtype]] * 2 + [EPS[torch.float32]] * 2, strict=True):
        error = (result.double() - expected).abs().max() / expected.abs().max()
        assert error <= max(eps, float32), (result.shape, float(error))


SHAPES = [
    (1, 16, 1, 1, 2),
    (2, 6, 5, 7, 3),
    (1, 32, 3, 2, 32),
    (1, 96, 9, 4, 32),
    (1, 24, 50, 61, 8),
    (1, 320, 12, 10, 4),
    (1, 40, 60, 61, 1),
]
ON_GPU = [
    (4, 64, 512, 512, 32),
    (4, 128, 256, 256, 32),
    (8, 256, 128, 128, 32),
    (8, 512, 64, 64, 32),
    (32, 512, 16, 16, 32),
    (3, 192, 255, 257, 32),
    (2, 30, 333, 222, 10),
    (1, 1024, 40, 40, 16),
    *((2, 64, 37, 53, g) for g in (1, 2, 4, 8, 16, 32)),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_result_and_gradients_with_silu(shape, where) -> None:
    check(images(shape[:4], torch.float32, where), shape[4], silu=True)


@pytest.mark.parametrize("shape", [SHAPES[1], SHAPES[-1]], ids=str)
def test_result_and_gradients_without_silu(shape, where) -> None:
    check(images(shape[:4], torch.float32, where), shape[4], silu=False)


@pytest.mark.parametrize("reduced", [torch.bfloat16, torch.float16])
def test_result_and_gradients_in_reduced_precision(reduced, where) -> None:
    check(images((1, 12, 33, 47), reduced, where), 4, silu=True)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("shape", ON_GPU, ids=str)
def test_every_shape_of_the_networks(shape, silu, kind, where) -> None:
    if where.type == "cpu":
        pytest.skip("too long for the interpreter")
    check(images(shape[:4], kind, where), shape[4], silu)


@pytest.mark.parametrize(("shape", "groups"), [((1, 16, 9, 5), 4), ((1, 16, 130, 127), 1), ((2, 6, 41, 40), 2)])
def test_pieces_of_one_image_give_the_same(shape, groups, where, monkeypatch) -> None:
    from keep.kernels import group_norm

    x = images(shape, torch.float32, where)
    monkeypatch.setattr(group_norm, "SMALL", 0)  # even a small image in pieces
    check(x, groups, silu=True)


def test_an_image_of_the_largest_scale(where, monkeypatch) -> None:
    from keep.kernels import group_norm

    if where.type == "cpu":  # larger tiles are faster in the interpreter
        monkeypatch.setattr(group_norm, "TILE", 2**18)
    check(images((1, 8, 512, 512), torch.bfloat16, where), 4, silu=True)


@pytest.mark.parametrize("small", [True, False])
def test_a_large_mean_costs_no_precision(small, where, monkeypatch) -> None:
    from keep.kernels import group_norm

    monkeypatch.setattr(group_norm, "SMALL", 2**30 if small else 0)
    x = images((1, 8, 70, 67), torch.float32, where, mean=3e4)
    found, exact = run(x, 2, False, exact=False), run(x, 2, False, exact=True)
    # float32 resolves 2e-3 here, half of which the mean may be off; E[x²] - E[x]² would be off by more than 1.
    torch.testing.assert_close(found[0].double(), exact[0], atol=5e-3, rtol=0)
    torch.testing.assert_close(found[1].double(), exact[1], atol=2e-2, rtol=0)


def test_the_operator_gives_the_same(where) -> None:
    from keep.kernels.group_norm import group_norm, normalise

    x = images((1, 8, 20, 20), torch.float32, where)
    weight, bias = torch.randn(2, 8, device=where).unbind()
    leaves = [v.detach().requires_grad_() for v in (x, weight, bias)]
    found, _, _ = group_norm(leaves[0], leaves[1], leaves[2], 2, 1e-6, True, x.dtype)
    expected = normalise(leaves[0], leaves[1], leaves[2], 2, 1e-6, True, x.dtype)
    assert torch.equal(found, expected)
    gradients = [torch.autograd.grad(y.square().sum(), leaves) for y in (found, expected)]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_the_same_input_gives_the_same_bits(where) -> None:
    x = images((2, 16, 40, 40), torch.bfloat16, where)
    assert all(torch.equal(a, b) for a, b in zip(run(x, 4, True, False), run(x, 4, True, False), strict=True))


class Copies(TorchDispatchMode):
    """Counts conversions and copies of layout."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.count += name in ("_to_copy", "clone", "copy_")
        return func(*args, **(kwargs or {}))


class NoKernel:
    """Launches nothing: the interpreter copies the arguments of a kernel."""

    def __getitem__(self, grid):
        return lambda *_args, **_kwargs: None


@pytest.mark.parametrize("plain", [torch.nn.GroupNorm, GroupNormSiLU])
def test_under_autocast_nothing_is_converted_or_copied(plain, where, monkeypatch) -> None:
    from keep.kernels import group_norm

    monkeypatch.setattr(group_norm, "_plain", lambda _: NoKernel())
    norm = FusedGroupNorm(plain(2, 8).to(where), where.type)
    x = images((1, 8, 6, 5), torch.bfloat16, where).requires_grad_()
    with torch.autocast(where.type, torch.bfloat16), Copies() as copies:
        y = norm(x)
        (dx,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert (y.dtype, dx.dtype, copies.count) == (torch.bfloat16, torch.bfloat16, 0)
    with torch.autocast(where.type, torch.bfloat16):
        assert norm(x.detach().float().contiguous(memory_format=torch.channels_last)).dtype == torch.bfloat16


def test_a_block_trains_as_before(where) -> None:
    torch.manual_seed(0)
    block = ResBlock(8, 12, groups=4).to(where)
    holder = torch.nn.Sequential(block).to(memory_format=torch.channels_last)
    x = images((1, 8, 12, 12), torch.float32, where)
    expected = [holder(x), *torch.autograd.grad(holder(x).square().sum(), list(block.parameters()))]
    fuse_norms(holder, where)
    assert isinstance(block.norm1, FusedGroupNorm)
    found = [holder(x), *torch.autograd.grad(holder(x).square().sum(), list(block.parameters()))]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4 * float(b.detach().abs().max()), rtol=0)


def test_frozen_weights_pass_the_gradient_on(where) -> None:
    norm = FusedGroupNorm(GroupNormSiLU(2, 8).to(where), where.type).requires_grad_(False)
    x = images((1, 8, 6, 5), torch.float32, where).requires_grad_()
    norm(x).square().sum().backward()
    assert x.grad is not None
    assert norm.weight.grad is None


def test_compile_has_no_graph_break(where) -> None:
    norm = FusedGroupNorm(GroupNormSiLU(2, 8).to(where), where.type)
    x = images((1, 8, 6, 5), torch.float32, where)
    backend = "eager" if where.type == "cpu" else "inductor"  # Inductor compiles no interpreted kernel
    compiled = torch.compile(norm, fullgraph=True, backend=backend)
    leaves = [norm.weight, norm.bias]
    expected = torch.autograd.grad(norm(x).square().sum(), leaves)
    torch.testing.assert_close(compiled(x), norm(x))
    torch.testing.assert_close(torch.autograd.grad(compiled(x).square().sum(), leaves), expected)
    with torch.autocast(where.type, torch.bfloat16):
        assert compiled(x.bfloat16()).dtype == torch.bfloat16


@torch.no_grad()
def test_export_contains_the_operator(where) -> None:
    norm = FusedGroupNorm(GroupNormSiLU(2, 8).to(where), where.type).eval()
    x = images((1, 8, 6, 5), torch.float32, where)
    exported = torch.export.export(norm, (x,))
    assert "keep.group_norm" in str(exported.graph)
    torch.testing.assert_close(exported.module()(x), norm(x))
