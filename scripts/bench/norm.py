"""GroupNorm and SiLU: PyTorch's, in both layouts, against the kernel of keep.kernels, forward and backward.

    python -m scripts.bench.norm --device cuda --out results/

Each path starts from the layout that the convolutions around it would give. GB/s counts the input and the output
once, and with the backward pass also the three tensors of that size which it needs; a kernel that reads its input twice
cannot reach the bandwidth of the card. Small shapes show the time that the host needs for a call. On a CPU only
PyTorch's paths run.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from keep.archs.blocks import GroupNormSiLU
from keep.config import arguments
from keep.config.cli import Parser, run
from keep.kernels.norm_layers import FusedGroupNorm, kernel_device
from keep.utils.devices import prepare
from keep.utils.dtypes import parse_dtype
from keep.utils.errors import UserError
from keep.utils.io import write_file
from keep.utils.tables import markdown_table
from scripts.bench.common import machine, say

SHAPES = {
    "released": [(4, 64, 512), (4, 128, 256), (4, 128, 128), (4, 256, 64), (4, 256, 32), (4, 512, 16), (32, 64, 256)],
    "small": [(1, 32, 32), (1, 64, 16)],
}
"""Name → (images, channels, side): the scales of E_L at 512×512, and the largest of a batch of stage I."""
GROUPS = 32
WARMUP = 5
LAST, FIRST = torch.channels_last, torch.contiguous_format


def bench(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    device, dtype = prepare(args.device, 1, 0), parse_dtype(args.dtype)
    rows = []
    for shape in SHAPES[args.size]:
        say(f"{shape[0]} × {shape[1]} × {shape[2]}²")
        rows += compare(shape, dtype, device, args.rounds)
    head = f"{machine(device)}; PyTorch {torch.__version__}; {args.dtype}; {args.rounds} rounds.\n"
    text = f"{head}\n{markdown_table(rows, list(rows[0]), 3)}"
    print(text, end="")
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        write_file(args.out / "norm.md", text)
        write_file(args.out / "norm.json", json.dumps({"machine": head.strip(), "rows": rows}, indent=1) + "\n")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = Parser(prog="scripts.bench.norm", description="GroupNorm and SiLU: PyTorch's kernels against ours.")
    p.add_argument("--device", default="auto", help="cuda, cuda:N, cpu or auto")
    p.add_argument("--dtype", default="bfloat16", help="of the images: bfloat16, float16 or float32")
    p.add_argument("--size", choices=tuple(SHAPES), default="released", help="shapes of the released network, or tiny")
    p.add_argument(
        "--rounds", type=arguments.count, default=20, help="calls of each path and shape, after a few to warm up"
    )
    p.add_argument("--out", type=Path, help="also write norm.md and norm.json into this folder")
    args = p.parse_args(argv)
    if args.rounds < 1:
        raise UserError("--rounds must be at least 1")
    return args


def compare(shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device, rounds: int) -> list[dict[str, Any]]:
    """One row a path for images (N, C, S, S)."""
    n, c, side = shape
    torch.manual_seed(0)
    norm = GroupNormSiLU(min(GROUPS, c), c, eps=1e-6).to(device)
    x = torch.randn(n, c, side, side, device=device, dtype=dtype)
    paths: dict[str, tuple[nn.Module, torch.memory_format]] = {
        "PyTorch, channels-last, float32": (norm, LAST),  # as under autocast
        "PyTorch, channels-last": (FusedGroupNorm(norm), LAST),
        "PyTorch, contiguous": (FusedGroupNorm(norm), FIRST),
    }
    if kernel := kernel_device(device):
        paths["kernel, channels-last"] = FusedGroupNorm(norm, kernel), LAST
    rows = []
    for name, (module, layout) in paths.items():
        call, step = calls(module, x.contiguous(memory_format=layout), layout, in_float32="float32" in name)
        size = x.numel() * x.element_size() / 1e9
        forward, both = (milliseconds(f, device, rounds) for f in (call, step))
        rows.append({
            "images": f"{n} × {c} × {side}²", "path": name, "forward ms": forward, "forward GB/s": 2e3 * size / forward,
            "forward and backward ms": both, "forward and backward GB/s": 5e3 * size / both,
        })  # fmt: skip
    return rows


def calls(
    module: nn.Module, x: Tensor, layout: torch.memory_format, in_float32: bool
) -> tuple[Callable[[], object], Callable[[], object]]:
    """A forward pass, and a forward and a backward pass; the result is in the type and layout of ``x``."""
    leaf = x.detach().requires_grad_()
    slope = torch.randn_like(x)

    def compute(value: Tensor) -> Tensor:
        with torch.autocast(x.device.type, x.dtype, enabled=not in_float32 and x.dtype != torch.float32):
            y = module(value.float() if in_float32 else value)
        return y.to(x.dtype).contiguous(memory_format=layout)

    def forward() -> Tensor:
        with torch.no_grad():
            return compute(x)

    def both() -> object:
        return torch.autograd.grad(compute(leaf), [leaf, *module.parameters()], slope)

    return forward, both


def milliseconds(function: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Median time of a call: between CUDA events, on a CPU by the clock."""
    for _ in range(WARMUP):
        function()
    if device.type != "cuda":
        seconds = []
        for _ in range(rounds):
            start = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - start)
        return 1e3 * statistics.median(seconds)
    events = [torch.cuda.Event(enable_timing=True) for _ in range(rounds + 1)]
    events[0].record()
    for event in events[1:]:
        function()
        event.record()
    torch.cuda.synchronize(device)
    return statistics.median(a.elapsed_time(b) for a, b in pairwise(events))


if __name__ == "__main__":
    sys.exit(run(bench))
