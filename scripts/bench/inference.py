"""Speed and accuracy of the accelerated network (keep/inference/fast) beside the plain one, measured in one run.

    python -m scripts.bench.inference                       512×512 on the CPU, one thread, 8 frames, 9 rounds
    python -m scripts.bench.inference --device cuda --dtype bfloat16
    python -m scripts.bench.inference --size small --rounds 1
    python -m scripts.bench.inference --device cuda --batch 4 --dtype bfloat16 --out results/

Rows: the plain path, the accelerated one, on CUDA with graphs; then complete clips of several batches and a single
stream; at last the compiled path, which takes minutes. Each is written to ``--out`` when it is measured: inference.md
and inference.json.

The plain path is that of the public code: float32, eager; E_L, flow and gains of the complete clip at once, then frame
by frame. The weights are random, from a seed. docs/benchmark_inference.md explains the tables.
"""  # fmt: skip

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from keep.archs.keep import KEEP, KEEPOutput
from keep.config import arguments
from keep.config.cli import Parser, run
from keep.config.registry import ARCHS
from keep.flow.gmflow import GMFlow
from keep.inference.fast import accelerate, keep_freed_memory
from keep.utils.devices import prepare
from keep.utils.dtypes import parse_dtype
from keep.utils.io import write_file
from keep.utils.tables import markdown_table
from scripts.bench.common import GIB, SEED, Clock, machine, moving_clip, say
from scripts.bench.inference_paths import (
    Variant,
    clip_rate,
    count_flops,
    measure_clip,
    measure_frame,
    measure_parts,
    stream_rate,
)

STREAM = "single stream, windows of 8"
SMALL: dict[str, Any] = {
    "image_size": 64, "channels": 32, "ch_mult": (1, 1, 2, 2), "attn_resolutions": (8,), "latent_dim": 64,
    "codebook_size": 64, "transformer_width": 64, "transformer_heads": 4, "transformer_layers": 2,
    "transformer_mlp_width": 128, "kalman_blocks": 2, "kalman_heads": 4, "kalman_head_dim": 16,
    "cft_scales": (8, 16, 32), "cfa_scales": (8, 16), "cfa_heads": 2, "cfa_head_dim": 16,
}  # fmt: skip


def bench(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    device = prepare(args.device, args.threads, SEED)
    on_gpu, dtype = device.type == "cuda", parse_dtype(args.dtype)
    say(f"building the network ({args.size})")
    spec = ARCHS.spec({"type": "KEEP", **(SMALL if args.size == "small" else {})})
    plain = spec.build(flow=GMFlow(random_weights=True)).eval().requires_grad_(False)
    random_weights(plain)
    plain.to(device)
    keep = args.keep_memory
    first = Variant("plain", plain, keep)
    fast = accelerate(plain, dtype)
    variants = [first, Variant("accelerated", fast, keep)]
    if not on_gpu and not keep and keep_freed_memory():
        variants.append(Variant("accelerated, freed memory kept", fast, keep_memory=True))
    eager = list(variants)
    if on_gpu:
        variants.append(Variant("accelerated, graphs", accelerate(plain, dtype, graphs=True), keep))
    lq = moving_clip(args.batch, args.frames, plain.image_size).to(device)
    results = Results(args, device)
    with torch.no_grad():
        results.ceiling = {str(d): matmul_flops(d, device) for d in {torch.float32, dtype}}
        compare(variants, first, lq, args.rounds)
        results.paths = variants
        results.write()
        for _ in range(args.rounds):
            for variant in eager:
                measure_parts(variant, lq)
        results.write()
        throughput(results, variants[-1], first, lq)
        if args.compile or (on_gpu and args.compile is None):
            compiled = Variant("compiled", accelerate(plain, dtype, compile=True, graphs=on_gpu), keep)
            compare([first, compiled], first, lq, args.rounds)
            results.paths = [*variants, compiled]
            results.write()
            throughput(results, compiled, first, lq)
    keep_freed_memory(False)
    print(results.text(), end="")


def compare(variants: list[Variant], plain: Variant, lq: Tensor, rounds: int) -> None:
    """Measure the complete clip and, in alternating rounds, one frame of every path."""
    for variant in variants:
        if variant.states is None:
            measure_clip(variant, lq, plain.states)
            variant.flop = count_flops(variant, lq)
    for i in range(rounds):
        seconds = [measure_frame(variant, lq) for variant in variants]
        for variant, spent in zip(variants, seconds, strict=True):
            if variant is not plain or len(plain.seconds) < rounds:
                variant.seconds.append(spent)
                variant.plain.append(seconds[0])
        say(f"round {i + 1}/{rounds}: {seconds[0]:.3f} s plain, {seconds[0] / seconds[-1]:.2f} times as fast")


def throughput(results: "Results", variant: Variant, plain: Variant, lq: Tensor) -> None:
    """Measure complete clips of every batch, and a single stream; a row is written when it exists."""
    args = results.args
    keep_freed_memory(variant.keep_memory)
    for batch in args.batches or ([1, 4, 16] if lq.device.type == "cuda" else []):
        clips = moving_clip(batch, lq.shape[1], lq.shape[-1]).to(lq.device)
        rates = {"frames/s": clip_rate(variant.net, clips, args.rounds)}
        results.clips.append({"path": variant.name, "clips": f"batch of {batch}", **rates})
        results.write()
    for path in (variant, plain):
        if not any(row["path"] == path.name and row["clips"] == STREAM for row in results.clips):
            results.clips.append({"path": path.name, "clips": STREAM, "frames/s": stream_rate(path.net, lq, 1)})
            results.write()


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = Parser(prog="scripts.bench.inference", description="Speed of plain and accelerated KEEP.")
    p.add_argument("--size", choices=("512", "small"), default="512", help="the released network, or a small one")
    p.add_argument("--frames", type=arguments.whole(2, 10**6), default=8, help="length of the clip, at least 2")
    p.add_argument("--batch", type=arguments.count, default=1, help="clips side by side")
    p.add_argument("--rounds", type=arguments.count, default=9, help="rounds; each restores one frame by every path")
    p.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    p.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or auto")
    p.add_argument("--threads", type=arguments.processes, default=1, help="CPU threads (0: torch's choice)")
    p.add_argument("--keep-memory", action="store_true", help="keep freed memory on all paths, also on the plain one")
    p.add_argument("--batches", type=arguments.count, nargs="+", help="batches of complete clips (on a GPU 1 4 16)")
    p.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="measure the compiled path too, last (default on CUDA)",
    )
    p.add_argument("--out", type=Path, help="folder for inference.md and inference.json")
    return p.parse_args(argv)


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


class Results:
    """What is measured so far.

    Attributes:
        paths: the paths measured, the plain one first.
        clips: rows of complete clips and streams.
        ceiling: FLOP/s of a large matrix product by dtype.
    """

    def __init__(self, args: argparse.Namespace, device: torch.device) -> None:
        self.args, self.device = args, device
        self.paths: list[Variant] = []
        self.clips: list[dict[str, Any]] = []
        self.ceiling: dict[str, float] = {}

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Title → rows; tables without rows are left out."""
        plain = self.paths[0]
        tables = {
            "One frame, in alternating rounds": [self.speed_row(v) for v in self.paths],
            "Seconds of the parts of a frame (medians)": part_rows([v for v in self.paths if v.parts]),
            "Complete clips": self.clips,
            "Difference to the plain path over the whole clip, on its codes": [
                {"path": v.name, **difference(v.states, plain.states)} for v in self.paths[1:]
            ],
        }
        return {title: rows for title, rows in tables.items() if rows}

    def head(self) -> str:
        args, net = self.args, self.paths[0].net
        weights = sum(p.numel() * p.element_size() for p in net.parameters()) / GIB
        ceilings = ", ".join(f"{v / 1e9:.0f} GFLOP/s in {k.removeprefix('torch.')}" for k, v in self.ceiling.items())
        return (
            f"{machine(self.device)}; PyTorch {torch.__version__}; {net.image_size}×{net.image_size}, "
            f"{args.frames} frames, batch {args.batch}, {args.dtype}"
            f"{', freed memory kept' if args.keep_memory else ''}, {args.rounds} rounds.\n"
            f"Convolutions of the plain path: {convolution_precision(self.device)}. Matrix product: {ceilings}. "
            f"Weights: {weights:.2f} GiB in float32, not in the peak memory.\n"
        )

    def text(self) -> str:
        """All tables as Markdown."""
        tables = [f"{title}:\n\n{markdown_table(rows, list(rows[0]), 3)}" for title, rows in self.tables().items()]
        return "\n".join([self.head(), *tables])

    def write(self) -> None:
        """Write what is measured so far to ``--out``."""
        if self.args.out:
            content = {"about": self.head(), "tables": self.tables()}
            write_file(self.args.out / "inference.json", json.dumps(content, indent=1, ensure_ascii=False))
            write_file(self.args.out / "inference.md", self.text())

    def speed_row(self, variant: Variant) -> dict[str, Any]:
        batch, median = self.args.batch, statistics.median(variant.seconds)
        ratios = [p / s for p, s in zip(variant.plain, variant.seconds, strict=True)]
        ceiling = self.ceiling[str(torch.float32 if variant is self.paths[0] else parse_dtype(self.args.dtype))]
        return {
            "path": variant.name,
            "frames/s": batch / median,
            "s a frame": median / batch,
            "speed-up, median": statistics.median(ratios),
            "lowest – highest": f"{min(ratios):.2f} – {max(ratios):.2f}",
            "GFLOP a frame": round(variant.flop / batch / 1e9),
            "GFLOP/s": round(variant.flop / median / 1e9),
            "of matmul": f"{variant.flop / median / ceiling:.0%}",
            "peak memory, GiB": variant.clip_memory / GIB,
            "whole clip, s a frame": variant.clip_seconds / self.args.frames / batch,
        }


def convolution_precision(device: torch.device) -> str:
    """What float32 convolutions compute in."""
    tf32 = (
        device.type == "cuda" and torch.backends.cudnn.allow_tf32 and torch.cuda.get_device_capability(device)[0] >= 8
    )
    return "TF32, PyTorch's default" if tf32 else "float32"


def part_rows(variants: list[Variant]) -> list[dict[str, Any]]:
    """A row a part: its median seconds on every path, and the speed-up of the last path over the first."""
    if not variants:
        return []
    first, last = variants[0].parts, variants[-1].parts
    rows = []
    for name in ("E_L", "flow", "gain", "E_H", "T_Q", "decoder", "CFT", "CFA"):
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
