"""Speed and fidelity of the accelerated restorer (keep/inference/fast.py) beside the plain one, measured in one run.

    python -m scripts.bench.inference                       512×512 on the CPU, one thread, 8 frames, 9 rounds
    python -m scripts.bench.inference --device cuda --dtype bfloat16
    python -m scripts.bench.inference --size small --rounds 1

The plain path is what the public code does: float32, eager, E_L, flow and gains of the whole clip at once, then one
frame at a time. Weights are random, from a seed. How to read the tables: docs/benchmark_inference.md.
"""  # fmt: skip

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from keep.archs.keep import KEEP, KalmanState, KEEPOutput
from keep.config.cli import run
from keep.degradation.resize import upsample
from keep.flow.gmflow import GMFlow
from keep.inference.fast import accelerate, keep_freed_memory
from keep.utils.devices import prepare
from keep.utils.errors import UserError
from keep.utils.io import write_file
from keep.utils.visual import markdown_table

SEED = 0
SMALL: dict[str, Any] = {
    "image_size": 64, "channels": 32, "ch_mult": (1, 1, 2, 2), "attn_resolutions": (8,), "latent_dim": 64,
    "codebook_size": 64, "transformer_width": 64, "transformer_heads": 4, "transformer_layers": 2,
    "transformer_mlp_width": 128, "kalman_blocks": 2, "kalman_heads": 4, "kalman_head_dim": 16,
    "cft_scales": (8, 16, 32), "cfa_scales": (8, 16), "cfa_heads": 2, "cfa_head_dim": 16,
}  # fmt: skip
GIB = 2**30


@dataclass
class Variant:
    """One way to restore, and what is measured of it.

    Attributes:
        name: as the tables show it.
        net: its network.
        keep_memory: whether the process keeps freed memory while this path runs.
        states: of the whole clip.
        clip_seconds: time of the whole clip.
        clip_memory: highest memory during the whole clip, above that before it (bytes).
        flop: floating-point operations of a frame.
        parts: part → seconds, one a round.
    """

    name: str
    net: KEEP
    keep_memory: bool = False
    states: KEEPOutput | None = None
    clip_seconds: float = 0.0
    clip_memory: float = 0.0
    flop: float = 0.0
    state: KalmanState | None = None
    parts: dict[str, list[float]] = field(default_factory=dict)

    def seconds(self) -> list[float]:
        """Of one frame, one a round."""
        return [sum(r) for r in zip(*(self.parts[p] for p in ("E_L", "flow", "gain", "step")), strict=True)]


class Clock:
    """Adds up seconds by name, once everything queued on the device is done."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self._started: dict[str, float] = {}

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @contextmanager
    def part(self, name: str, share: float = 1.0):
        start = self.now()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + share * (self.now() - start)

    @contextmanager
    def watch(self, modules: dict[str, list[nn.Module]]):
        """Time every call of these modules, under their names."""

        def before(name: str, *_: Any) -> None:
            self._started[name] = self.now()

        def after(name: str, *_: Any) -> None:
            self.seconds[name] = self.seconds.get(name, 0.0) + self.now() - self._started[name]

        hooks = []
        for name, group in modules.items():
            for module in group:
                hooks.append(module.register_forward_pre_hook(partial(before, name)))
                hooks.append(module.register_forward_hook(partial(after, name)))
        yield
        for hook in hooks:
            hook.remove()


class ForcedCodes(nn.Module):
    """Stands in for T_Q: notes its codes, and answers with the logits of another run.

    With random weights a code that flips by rounding changes all that follows, so two runs can only be compared
    frame by frame while their codes are the same.
    """

    def __init__(self, code_transformer: nn.Module, logits: Tensor) -> None:
        super().__init__()
        self.inner, self.logits = code_transformer, logits
        self.codes: list[Tensor] = []

    def forward(self, z: Tensor) -> Tensor:
        self.codes.append(self.inner(z).argmax(-1))
        return self.logits[:, len(self.codes) - 1]


def bench(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    device = prepare(args.device, args.threads, SEED)
    dtype = getattr(torch, args.dtype)
    say(f"building the network ({args.size})")
    plain = KEEP(**(SMALL if args.size == "small" else {}), flow=GMFlow()).eval().requires_grad_(False)
    fill(plain)
    plain.to(device)
    fast = accelerate(plain, dtype, compile=args.compile)
    variants = [Variant("plain", plain, args.keep_memory), Variant("accelerated", fast, args.keep_memory)]
    if device.type == "cpu" and not args.keep_memory and keep_freed_memory():
        variants.append(Variant("accelerated, freed memory kept", fast, keep_memory=True))
    lq = moving_clip(args.batch, args.frames, plain.image_size).to(device)

    with torch.no_grad():
        ceiling = {d: matmul_flops(d, device) for d in {torch.float32, dtype}}
        for variant in variants:
            whole_clip(variant, lq, variants[0].states)
        for variant in variants:
            variant.flop = flops_a_frame(variant, lq)
        for i in range(args.rounds):
            for variant in variants:
                one_frame(variant, lq, watch=not args.compile)
            for d in ceiling:  # a busy moment must not pass for the machine's best
                ceiling[d] = max(ceiling[d], matmul_flops(d, device))
            ratio = variants[0].seconds()[i] / variants[-1].seconds()[i]
            say(f"round {i + 1}/{args.rounds}: {variants[0].seconds()[i]:.2f} s plain, {ratio:.2f} times as fast")

    keep_freed_memory(False)
    text = report(args, device, variants, ceiling[torch.float32], ceiling[dtype])
    print(text, end="")
    if args.out:
        write_file(args.out, text.encode())


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="scripts.bench.inference", description="plain and accelerated KEEP, interleaved")
    p.add_argument("--size", choices=("512", "small"), default="512", help="the released network, or a small one")
    p.add_argument("--frames", type=int, default=8, help="length of the clip, at least 2")
    p.add_argument("--batch", type=int, default=1, help="clips side by side")
    p.add_argument("--rounds", type=int, default=9, help="each restores one frame with every path in turn")
    p.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    p.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or auto")
    p.add_argument("--threads", type=int, default=1, help="CPU threads (0: torch's choice)")
    p.add_argument("--keep-memory", action="store_true", help="keep freed memory on every path, the plain one too")
    p.add_argument("--compile", action="store_true", help="torch.compile the sub-networks; parts are then not timed")
    p.add_argument("--out", type=Path, help="write the tables to this file too")
    args = p.parse_args(argv)
    if args.frames < 2 or args.rounds < 1 or args.batch < 1:
        raise UserError("--frames must be at least 2, --rounds and --batch at least 1")
    return args


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def fill(net: KEEP) -> None:
    """Random weights that keep the size of what passes through, and leave no branch silent."""
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


def moving_clip(batch: int, frames: int, size: int) -> Tensor:
    """(B, T, 3, S, S) in [-1, 1]: a smooth texture moving by one LQ pixel a frame, upsampled ×4."""
    small = size // 4
    generator = torch.Generator().manual_seed(SEED)
    coarse = torch.randn(batch, 3, max(small // 8, 2), max(small // 8, 2), generator=generator)
    texture = F.interpolate(coarse, size=(small, small), mode="bicubic").tanh()
    return upsample(torch.stack([texture.roll(t, -1) for t in range(frames)], dim=1), 4)


def whole_clip(variant: Variant, lq: Tensor, reference: KEEPOutput | None) -> None:
    """Time, memory and states of the whole clip; with ``reference``, on its codes."""
    say(f"whole clip of {lq.shape[1]} frames: {variant.name}")
    net, clock = variant.net, Clock(lq.device)
    keep_freed_memory(False)
    if variant.keep_memory:
        keep_freed_memory()
    own = net.code_transformer
    forced = None
    if reference is not None:
        forced = net.code_transformer = ForcedCodes(own, reference.logits)  # type: ignore[assignment]
    before = start_of_memory(lq.device)
    with clock.part("clip"):
        variant.states = net(lq, return_states=True)
    variant.clip_memory = peak_of_memory(lq.device) - before
    variant.clip_seconds = clock.seconds["clip"]
    assert variant.states is not None
    if forced is not None:
        net.code_transformer = own
        variant.states.codes = torch.stack(forced.codes, dim=1)
    _, variant.state = net.step(variant.states.z_obs[:, 0], variant.states.gains[:, 0], features(variant, lq))


def features(variant: Variant, lq: Tensor) -> dict[int, Tensor]:
    return {scale: f[:, 0] for scale, f in variant.net.observe(lq[:, :1])[1].items()}


def one_frame(variant: Variant, lq: Tensor, watch: bool) -> None:
    """Restore the second frame, and note the seconds of the parts.

    The gains of a clip come from all its frames at once: a frame's share of them is counted.
    """
    net, clock = variant.net, Clock(lq.device)
    keep_freed_memory(variant.keep_memory)
    parts: dict[str, list[nn.Module]] = {
        "E_H": [net.hq_encoder],
        "T_Q": [net.code_transformer],
        "generator": [net.generator],
        "CFT": list(net.cft.values()),
        "CFA": list(net.cfa.values()),
    }
    with clock.watch(parts if watch else {}):
        for name, share, work in frame_work(variant, lq):
            with clock.part(name, share):
                work()
    if watch:  # the generator calls CFT and CFA
        clock.seconds["decoder"] = clock.seconds.pop("generator") - clock.seconds["CFT"] - clock.seconds["CFA"]
    for name, seconds in clock.seconds.items():
        variant.parts.setdefault(name, []).append(seconds)


def frame_work(variant: Variant, lq: Tensor) -> list[tuple[str, float, Callable[[], object]]]:
    """The parts of a frame's work: name, the frame's share of it, and what does it."""
    net, states = variant.net, variant.states
    assert states is not None
    seen: dict[str, Any] = {}

    def observe() -> None:
        z, f = net.observe(lq[:, 1:2])
        seen["z"], seen["features"] = z[:, 0], {scale: feature[:, 0] for scale, feature in f.items()}

    def flow() -> None:
        seen["flow"] = net.estimate_flows(lq[:, :2])[:, 0]

    def gain() -> None:
        seen["gain"] = net.kalman_filter(states.z_obs)[:, 1]

    def step() -> None:
        net.step(seen["z"], seen["gain"], seen["features"], flow=seen["flow"], state=variant.state)

    return [("E_L", 1, observe), ("flow", 1, flow), ("gain", 1 / lq.shape[1], gain), ("step", 1, step)]


def flops_a_frame(variant: Variant, lq: Tensor) -> float:
    """Counted, 2 a multiply-add. It is the first run, too, in which libraries choose their kernels."""
    total = 0.0
    for _, share, work in frame_work(variant, lq):
        with FlopCounterMode(display=False) as counter:
            work()
        total += share * counter.get_total_flops()
    return total


def matmul_flops(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of a large matrix product: what this machine can do at best."""
    n = 8192 if device.type == "cuda" else 2048
    a = torch.randn(n, n, device=device).to(dtype)
    times = []
    for _ in range(8 if device.type == "cuda" else 4):
        clock = Clock(device)
        with clock.part("matmul"):
            torch.mm(a, a)
        times.append(clock.seconds["matmul"])
    return 2 * n**3 / min(times)


def start_of_memory(device: torch.device) -> float:
    """Begin to note the highest memory; bytes in use now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the kernel's high-water mark (Linux)
    except OSError:
        return float("nan")
    return _status("VmRSS")


def peak_of_memory(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM")


def _status(key: str) -> float:
    """A size in bytes from /proc/self/status; NaN where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith(key)), float("nan"))


def machine(device: torch.device) -> str:
    """Model of GPU or CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "CPU")
    return f"{name}, {torch.get_num_threads()} of {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"


def report(
    args: argparse.Namespace, device: torch.device, variants: list[Variant], ceiling: float, ceiling_fast: float
) -> str:
    size = variants[0].net.image_size
    plain = variants[0].seconds()
    rows, fidelity = [], []
    for variant in variants:
        seconds = variant.seconds()
        median = statistics.median(seconds)
        best = ceiling if variant is variants[0] else ceiling_fast
        rows.append(
            {
                "path": variant.name,
                "frames/s": args.batch / median,
                "s a frame": median / args.batch,
                "speed-up, median": statistics.median(p / s for p, s in zip(plain, seconds, strict=True)),
                "lowest – highest": spread([p / s for p, s in zip(plain, seconds, strict=True)]),
                "GFLOP a frame": round(variant.flop / args.batch / 1e9),
                "GFLOP/s": round(variant.flop / median / 1e9),
                "of matmul": f"{variant.flop / median / best:.0%}",
                "peak memory, GiB": variant.clip_memory / GIB,
                "whole clip, s a frame": variant.clip_seconds / args.frames / args.batch,
            }
        )
        if variant is not variants[0]:
            fidelity.append({"path": variant.name, **difference(variant.states, variants[0].states)})
    names = [n for n in ("E_L", "flow", "gain", "E_H", "T_Q", "decoder", "CFT", "CFA") if n in variants[0].parts]
    parts = []
    for name in names:
        row: dict[str, Any] = {"part": name}
        for variant in variants:
            row[variant.name] = statistics.median(variant.parts[name])
        pairs = zip(variants[0].parts[name], variants[-1].parts[name], strict=True)
        row["speed-up"] = statistics.median(p / s for p, s in pairs)
        parts.append(row)
    weights = sum(p.numel() * p.element_size() for p in variants[0].net.parameters()) / GIB
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
            markdown_table(rows, list(rows[0]), 3),
            "Seconds of the parts of a frame (medians):\n",
            markdown_table(parts, list(parts[0]), 3),
            "Difference to the plain path over the whole clip, on its codes:\n",
            markdown_table(fidelity, list(fidelity[0]), 2),
        ]
    )


def spread(values: list[float]) -> str:
    return f"{min(values):.2f} – {max(values):.2f}"


def difference(fast: KEEPOutput | None, plain: KEEPOutput | None) -> dict[str, Any]:
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
