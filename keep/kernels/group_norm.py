"""GroupNorm of channels-last images, with SiLU behind it if asked, as operators of PyTorch on Triton kernels.

PyTorch's CUDA kernels want (N, C, H, W) in memory, so between channels-last convolutions each GroupNorm costs two
copies; and under autocast it runs in float32. These kernels read the data once for the statistics and once more to
apply them, in the layout of the convolutions. Statistics are float32, found by Welford's method and combined by
Chan's, so a large mean costs no precision. ``torch.compile`` and ``torch.export`` see the operators
(``torch.library.triton_op``).

On a CPU the kernels run in Triton's interpreter alone (TRITON_INTERPRET=1), which is for tests.
"""

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from keep.kernels.group_norm_triton import (
    apply,
    gradient_sums,
    group_sums,
    input_gradient,
    moments,
    small,
    small_backward,
    statistics,
)

INTERPRETED = not isinstance(moments, triton.JITFunction)
"""Whether Triton's interpreter is on; it runs on the CPU."""

if INTERPRETED:

    def wrap_triton(triton_kernel: Any, /) -> Any:  # the interpreter's kernels are plain functions
        return triton_kernel

else:
    from torch.library import wrap_triton

Outputs = tuple[Tensor, Tensor, Tensor]

TILE = 4096
"""Numbers in a tile: 32 for each of the 128 threads of a program, four reads of 16 bytes in bfloat16."""
BLOCK = 256
"""Most channels in a tile."""
SMALL = 16384
"""Most numbers in a group that one program handles alone: a single launch, and the second read comes from the cache."""
FEWEST_ROWS = 32
"""Fewest rows of a piece: the partial results of a piece are written and read again, 16 bytes a channel."""
PROGRAMS = 8 if INTERPRETED else 4096
"""Programs that a large input is split into: several rounds of the most that run at once on any card."""


class Plan(NamedTuple):
    """How an image of ``hw`` rows is shared by programs.

    Attributes:
        rows: rows of a piece.
        splits: pieces of an image.
        tile_rows: rows of a tile.
        block: channels of a tile.
        blocks: tiles side by side that cover all channels.
    """

    rows: int
    splits: int
    tile_rows: int
    block: int
    blocks: int


def plan(n: int, hw: int, channels: int) -> Plan:
    """Pieces for ``n`` images of ``hw`` rows and ``channels`` channels."""
    block = min(BLOCK, triton.next_power_of_2(channels))
    blocks = triton.cdiv(channels, block)
    tile_rows = TILE // block
    pieces = max(1, PROGRAMS // (n * blocks))  # of an image
    rows = max(triton.cdiv(hw, pieces), FEWEST_ROWS)
    rows = triton.cdiv(rows, tile_rows) * tile_rows
    return Plan(rows, triton.cdiv(hw, rows), tile_rows, block, blocks)


def group_tile(channels_of_group: int) -> tuple[int, int]:
    """Rows and channels of a tile that covers one group."""
    block = triton.next_power_of_2(channels_of_group)
    return max(1, TILE // block), block


def is_small(hw: int, channels_of_group: int) -> bool:
    """Whether one program handles a group of this size alone."""
    return hw * channels_of_group <= SMALL


@torch.library.triton_op("keep::group_norm", mutates_args=())
def group_norm(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """GroupNorm, then SiLU if ``silu``.

    Args:
        x: (N, C, H, W), channels-last; float32, bfloat16 or float16.
        weight: (C,), of any of these types.
        bias: (C,).
        groups: a divisor of C.
        eps: added to the variance.
        silu: apply SiLU.
        dtype: of the result.

    Returns:
        the result (N, C, H, W), channels-last, and for the backward pass mean and 1 / deviation (N, groups), float32.
    """
    return _forward(wrap_triton, x, weight, bias, groups, eps, silu, dtype)


@torch.library.triton_op("keep::group_norm_backward", mutates_args=())
def group_norm_backward(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, groups: int, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of :func:`group_norm` with respect to x, weight and bias, in their types."""
    return _gradients(wrap_triton, dy, x, weight, bias, mean, rstd, groups, silu)


def _forward(
    wrap_triton: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool, dtype: torch.dtype
) -> Outputs:
    n, c, h, w = x.shape
    hw, per_group = h * w, c // groups
    y, mean, rstd = _outputs(x, groups, dtype)
    rows, block = group_tile(per_group)
    if is_small(hw, per_group):
        wrap_triton(small)[(n * groups,)](
            x, weight, bias, y, mean, rstd, hw, eps, C=c, G=groups, SILU=silu, P=rows, BG=block, num_warps=8
        )
        return y, mean, rstd
    p = plan(n, hw, c)
    means = torch.empty(n, p.splits, c, dtype=torch.float32, device=x.device)
    squares = torch.empty_like(means)
    grid = (n * p.splits, p.blocks)
    wrap_triton(moments)[grid](x, means, squares, hw, p.splits, p.rows, C=c, P=p.tile_rows, BC=p.block)
    wrap_triton(statistics)[(n * groups,)](
        means, squares, mean, rstd, hw, p.splits, p.rows, eps, C=c, G=groups, BS=rows, BG=block
    )
    wrap_triton(apply)[grid](
        x, weight, bias, mean, rstd, y, hw, p.splits, p.rows,
        C=c, G=groups, SILU=silu, P=p.tile_rows, BC=p.block,
    )  # fmt: skip
    return y, mean, rstd


def _gradients(
    wrap_triton: Any, dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor,
    groups: int, silu: bool,
) -> Outputs:  # fmt: skip
    n, c, h, w = x.shape
    hw, per_group = h * w, c // groups
    dy = dy.contiguous(memory_format=torch.channels_last)
    dx = torch.empty_like(x, memory_format=torch.channels_last)
    dweight = torch.empty(n, c, dtype=torch.float32, device=x.device)
    dbias = torch.empty_like(dweight)
    rows, block = group_tile(per_group)
    if is_small(hw, per_group):
        wrap_triton(small_backward)[(n * groups,)](
            dy,
            x,
            weight,
            bias,
            mean,
            rstd,
            dx,
            dbias,
            dweight,
            hw,
            C=c,
            G=groups,
            SILU=silu,
            P=rows,
            BG=block,
            num_warps=8,
        )
    else:
        p = plan(n, hw, c)
        plain = torch.empty(n, p.splits, c, dtype=torch.float32, device=x.device)
        scaled = torch.empty_like(plain)
        group_plain, group_scaled = torch.empty_like(mean), torch.empty_like(mean)
        grid = (n * p.splits, p.blocks)
        wrap_triton(gradient_sums)[grid](
            dy, x, weight, bias, mean, rstd, plain, scaled, hw, p.splits, p.rows,
            C=c, G=groups, SILU=silu, P=p.tile_rows, BC=p.block,
        )  # fmt: skip
        wrap_triton(group_sums)[(n * groups,)](
            plain, scaled, weight, dbias, dweight, group_plain, group_scaled, hw, p.splits,
            C=c, G=groups, BS=rows, BG=block,
        )  # fmt: skip
        wrap_triton(input_gradient)[grid](
            dy, x, weight, bias, mean, rstd, group_plain, group_scaled, dx, hw, p.splits, p.rows,
            C=c, G=groups, SILU=silu, P=p.tile_rows, BC=p.block,
        )  # fmt: skip
    return dx, dweight.sum(0).to(weight.dtype), dbias.sum(0).to(bias.dtype)


@group_norm.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool, dtype: torch.dtype) -> Outputs:
    return _outputs(x, groups, dtype)


@group_norm_backward.register_fake
def _(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, groups: int, silu: bool
) -> Outputs:
    dx = torch.empty_like(x, memory_format=torch.channels_last)
    return dx, torch.empty_like(weight), torch.empty_like(bias)


def _outputs(x: Tensor, groups: int, dtype: torch.dtype) -> Outputs:
    y = torch.empty_like(x, dtype=dtype, memory_format=torch.channels_last)
    mean = torch.empty(x.shape[0], groups, dtype=torch.float32, device=x.device)
    return y, mean, torch.empty_like(mean)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None:
    x, weight, bias, ctx.groups, _, ctx.silu, _ = inputs
    _, mean, rstd = output
    ctx.save_for_backward(x, weight, bias, mean, rstd)
    ctx.mark_non_differentiable(mean, rstd)


def _backward(ctx: Any, dy: Tensor, _mean: Tensor | None, _rstd: Tensor | None) -> tuple[Tensor | None, ...]:
    x, weight, bias, mean, rstd = ctx.saved_tensors
    gradients = group_norm_backward(dy, x, weight, bias, mean, rstd, ctx.groups, ctx.silu)
    return (*_wanted(ctx, gradients), None, None, None, None)


def _wanted(ctx: Any, gradients: Outputs) -> list[Tensor | None]:
    return [g if needed else None for g, needed in zip(gradients, ctx.needs_input_grad[:3], strict=True)]


group_norm.register_autograd(_backward, setup_context=_save)


class _Eager(torch.autograd.Function):
    """The same without the operators, whose autograd needs more time of the host than the kernels of a small image."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, *options: Any) -> Tensor:
        ctx.groups, _, ctx.silu, _ = options
        y, mean, rstd = _forward(_plain, x, weight, bias, *options)
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, rstd = ctx.saved_tensors
        gradients = _gradients(_plain, dy, x, weight, bias, mean, rstd, ctx.groups, ctx.silu)
        return (*_wanted(ctx, gradients), None, None, None, None)


def _plain(kernel: Any) -> Any:
    return kernel


def normalise(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool, dtype: torch.dtype
) -> Tensor:
    """The result of :func:`group_norm`: by the operator where PyTorch traces it, else by its kernels directly."""
    if torch.compiler.is_compiling():
        return group_norm(x, weight, bias, groups, eps, silu, dtype)[0]
    return _Eager.apply(x, weight, bias, groups, eps, silu, dtype)
