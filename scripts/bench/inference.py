"""Speed and accuracy of the accelerated network (keep/inference/fast) beside the plain one, measured in one run.

    python -m scripts.bench.inference                       512×512 on the CPU, one thread, 8 frames, 9 rounds
    python -m scripts.bench.inference --device cuda --dtype bfloat16
    python -m scripts.bench.inference --size small --rounds 1

The plain path is that of the public code: float32, eager; E_L, flow and gains of the complete clip at once, then frame
by frame. The weights are random, from a seed. docs/benchmark_inference.md explains the tables.
"""  # fmt: skip

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from keep.archs.keep import KEEP, KEEPOutput
from keep.config.cli import Parser, run
from keep.config.registry import ARCHS
from keep.flow.gmflow import GMFlow
from keep.inference.fast import accelerate, keep_freed_memory
from keep.utils.devices import prepare
from keep.utils.dtypes import parse_dtype
from keep.utils.errors import UserError
from keep.utils.io import write_file
from keep.utils.tables import markdown_table
from scripts.bench.common import GIB, SEED, Clock, machine, moving_clip, say
from scripts.bench.inference_paths import Variant, count_flops, measure_clip, measure_frame

SMALL: dict[str, Any] = {
    "image_size": 64, "channels": 32, "ch_mult": (1, 1, 2, 2), "attn_resolutions": (8,), "latent_dim": 64,
    "codebook_size": 64, "transformer_width": 64, "transformer_heads": 4, "transformer_layers": 2,
    "transformer_mlp_width": 128, "kalman_blocks": 2, "kalman_heads": 4, "kalman_head_dim": 16,
    "cft_scales": (8, 16, 32), "cfa_scales": (8, 16), "cfa_heads": 2, "cfa_head_dim": 16,
}  # fmt: skip


def bench(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    device = prepare(args.device, args.threads, SEED)
    dtype = parse_dtype(args.dtype)
    say(f"building the network ({args.size})")
    spec = ARCHS.spec({"type": "KEEP", **(SMALL if args.size == "small" else {})})
    plain = spec.build(flow=GMFlow(random_weights=True)).eval().requires_grad_(False)
    random_weights(plain)
    plain.to(device)
    fast = accelerate(plain, dtype, compile=args.compile)
    variants = [Variant("plain", plain, args.keep_memory), Variant("accelerated", fast, args.keep_memory)]
    if device.type == "cpu" and not args.keep_memory and keep_freed_memory():
        variants.append(Variant("accelerated, freed memory kept", fast, keep_memory=True))
    lq = moving_clip(args.batch, args.frames, plain.image_size).to(device)

    with torch.no_grad():
        ceiling = {d: matmul_flops(d, device) for d in {torch.float32, dtype}}
        for variant in variants:
            measure_clip(variant, lq, variants[0].states)
        for variant in variants:
            variant.flop = count_flops(variant, lq)
        for i in range(args.rounds):
            for variant in variants:
                measure_frame(variant, lq, watch=not args.compile)
            for d in ceiling:  # again: the machine may have been busy before
                ceiling[d] = max(ceiling[d], matmul_flops(d, device))
            ratio = variants[0].seconds()[i] / variants[-1].seconds()[i]
            say(f"round {i + 1}/{args.rounds}: {variants[0].seconds()[i]:.2f} s plain, {ratio:.2f} times as fast")

    keep_freed_memory(False)
    text = report(args, device, variants, ceiling[torch.float32], ceiling[dtype])
    print(text, end="")
    if args.out:
        write_file(args.out, text)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = Parser(prog="scripts.bench.inference", description="Speed of plain and accelerated KEEP.")
    p.add_argument("--size", choices=("512", "small"), default="512", help="the released network, or a small one")
    p.add_argument("--frames", type=int, default=8, help="length of the clip, at least 2")
    p.add_argument("--batch", type=int, default=1, help="clips side by side")
    p.add_argument("--rounds", type=int, default=9, help="rounds; each restores one frame by every path")
    p.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    p.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or auto")
    p.add_argument("--threads", type=int, default=1, help="CPU threads (0: torch's choice)")
    p.add_argument("--keep-memory", action="store_true", help="keep freed memory on all paths, also on the plain one")
    p.add_argument("--compile", action="store_true", help="compile the sub-networks; parts are then not timed")
    p.add_argument("--out", type=Path, help="also write the tables to this file")
    args = p.parse_args(argv)
    if args.frames < 2 or args.rounds < 1 or args.batch < 1:
        raise UserError("--frames must be at least 2, --rounds and --batch at least 1")
    return args


def random_weights(net: KEEP) -> None:
    """Set random weights that keep the scale of the signal and give every branch an effect."""
    generator = torch.Generator().manual_seed(SEED)
    for name, p in net.named_parameters():
        x = torch.randn(p.shape, generator=generator)
        if p.dim() == 1:
            x = 1 + 0.1 * x if name.endswith("weight") else 0.05 * x
        elif name.endswith("position_emb"):
            x = 0.3 * x
        elif not name.startswith("codebook"):
            gain = 3.0 if name.endswith("idx_pred_layer.1.weight") else 0.5 if ".scale.2." in name else 1.0
            x = x * gain / p[0].numel() ** 0.5
        p.data.copy_(x)


def matmul_flops(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of a large matrix product: an upper bound for this machine."""
    n = 8192 if device.type == "cuda" else 2048
    a = torch.randn(n, n, device=device).to(dtype)
    times = []
    for _ in range(8 if device.type == "cuda" else 4):
        clock = Clock(device)
        with clock.part("matmul"):
            torch.mm(a, a)
        times.append(clock.seconds["matmul"])
    return 2 * n**3 / min(times)


def report(
    args: argparse.Namespace, device: torch.device, variants: list[Variant], ceiling: float, ceiling_fast: float
) -> str:
    """All tables as Markdown."""
    plain = variants[0]
    speeds = [speed_row(args, v, plain, ceiling if v is plain else ceiling_fast) for v in variants]
    parts = part_rows(variants)
    accuracy = [{"path": v.name, **difference(v.states, plain.states)} for v in variants[1:]]
    size = plain.net.image_size
    weights = sum(p.numel() * p.element_size() for p in plain.net.parameters()) / GIB
    head = (
        f"{machine(device)}; PyTorch {torch.__version__}; {size}×{size}, {args.frames} frames, batch {args.batch}, "
        f"{args.dtype}{', compiled' if args.compile else ''}{', freed memory kept' if args.keep_memory else ''}, "
        f"{args.rounds} rounds.\n"
        f"Matrix product: {ceiling / 1e9:.0f} GFLOP/s in float32, {ceiling_fast / 1e9:.0f} in {args.dtype}. "
        f"Weights: {weights:.2f} GiB in float32, not in the peak memory.\n"
    )
    return "\n".join(
        [
            head,
            markdown_table(speeds, list(speeds[0]), 3),
            "Seconds of the parts of a frame (medians):\n",
            markdown_table(parts, list(parts[0]), 3),
            "Difference to the plain path over the whole clip, on its codes:\n",
            markdown_table(accuracy, list(accuracy[0]), 2),
        ]
    )


def speed_row(args: argparse.Namespace, variant: Variant, plain: Variant, ceiling: float) -> dict[str, Any]:
    seconds = variant.seconds()
    median = statistics.median(seconds)
    ratios = [p / s for p, s in zip(plain.seconds(), seconds, strict=True)]
    return {
        "path": variant.name,
        "frames/s": args.batch / median,
        "s a frame": median / args.batch,
        "speed-up, median": statistics.median(ratios),
        "lowest – highest": f"{min(ratios):.2f} – {max(ratios):.2f}",
        "GFLOP a frame": round(variant.flop / args.batch / 1e9),
        "GFLOP/s": round(variant.flop / median / 1e9),
        "of matmul": f"{variant.flop / median / ceiling:.0%}",
        "peak memory, GiB": variant.clip_memory / GIB,
        "whole clip, s a frame": variant.clip_seconds / args.frames / args.batch,
    }


def part_rows(variants: list[Variant]) -> list[dict[str, Any]]:
    """A row a part: its median seconds on every path, and the speed-up of the last path over the first."""
    first, last = variants[0].parts, variants[-1].parts
    rows = []
    for name in ("E_L", "flow", "gain", "E_H", "T_Q", "decoder", "CFT", "CFA"):
        if name in first:
            ratios = [p / s for p, s in zip(first[name], last[name], strict=True)]
            medians = {v.name: statistics.median(v.parts[name]) for v in variants}
            rows.append({"part": name, **medians, "speed-up": statistics.median(ratios)})
    return rows


def difference(fast: KEEPOutput | None, plain: KEEPOutput | None) -> dict[str, Any]:
    """The differences between the outputs and states of two paths."""
    assert fast is not None
    assert plain is not None

    def largest(name: str) -> str:
        return f"{(getattr(fast, name).float() - getattr(plain, name)).abs().max().item():.1e}"

    mse = (fast.output - plain.output).double().square().mean().item()
    psnr = 10 * torch.tensor(4 / mse).log10().item() if mse else float("inf")
    return {
        "max output": largest("output"),
        "PSNR, dB": psnr,
        "max z̃": largest("z_obs"),
        "max gain": largest("gains"),
        "own codes equal": f"{(fast.codes == plain.codes).double().mean().item():.2%}",
    }


if __name__ == "__main__":
    sys.exit(run(bench))
