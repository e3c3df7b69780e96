"""Speed and agreement of the backends of an exported network, beside PyTorch, in one run on the CPU.

    python -m scripts.bench.backends face.mp4 --frames 100                 # the weights lite, one thread
    python -m scripts.bench.backends -w nano --only onnx openvino   # a drawn clip

Every path restores the same frames, a few at a time, in turn: whatever else runs on the machine disturbs all of them
alike. The flow is computed once, outside of the measured time. Times are of the processor (all threads), so they do not
count the time in which another program had the core; the ratio of the wall clock is given beside them.
"""  # fmt: skip

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from keep.archs.keep import KEEP
from keep.config import arguments
from keep.config.cli import Parser, run
from keep.inference.api import resize
from keep.inference.exported import Inductor, OnnxRuntime, OpenVINO, Stepper, export
from keep.inference.fast import accelerate, keep_freed_memory
from keep.inference.streaming import Streamer
from keep.inference.weights import DEFAULT, load_keep
from keep.utils.dtypes import has_bfloat16
from keep.utils.errors import UserError
from keep.utils.io import write_file
from keep.utils.tables import markdown_table
from scripts.bench.backends_int8 import quantize
from scripts.bench.common import machine, moving_clip, say
from scripts.bench.streaming import low_quality

AT_ONCE = 4
"""Frames of one path before the next one has its turn."""
NAMES = ("pytorch", "onnx", "openvino", "inductor")

Restore = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Frames (n, 3, S, S) and their flows (n, 2, S, S) → restored (n, 3, S, S) and codes (n, h·w). Keeps its state."""


@dataclass
class Candidate:
    """One path and its results, a value for each turn."""

    name: str
    restore: Restore
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    error: list[float] = field(default_factory=list)
    codes: list[float] = field(default_factory=list)


@torch.no_grad()
def bench(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    net = load_keep(args.weights)
    lq, flows = clip(args, net)
    with tempfile.TemporaryDirectory() as folder:
        paths = build(net, args, Path(folder), lq, flows)
        measure(paths, lq, flows)
    where = args.video.name if args.video else "a drawn clip"
    text = f"{where}, {len(lq)} frames, {net.image_size}×{net.image_size}, weights {args.weights}\n"
    text += f"{machine(torch.device('cpu'))}, {args.threads} thread(s), PyTorch {torch.__version__}\n\n"
    text += markdown_table(rows(paths), list(rows(paths)[0]), 2)
    print(text, end="")
    if args.out:
        write_file(args.out, text)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = Parser(prog="scripts.bench.backends", description="Speed and agreement of exported networks.")
    p.add_argument("video", type=Path, nargs="?", help="a clip of an aligned face, resized (default: a drawn clip)")
    p.add_argument("-w", "--weights", default=DEFAULT, help=f"a weights file, or a name ({DEFAULT})")
    p.add_argument("--frames", type=arguments.whole(2 * AT_ONCE, 10_000), default=40, help="frames to restore (40)")
    p.add_argument("--threads", type=arguments.whole(1, 1024), default=1, help="CPU threads of every path (1)")
    p.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES[:3]), help="backends (all but inductor)")
    p.add_argument("--int8", action="store_true", help="also int8, calibrated on the clip's first frames")
    p.add_argument("--fp16", action="store_true", help="also the float16 file")
    p.add_argument("--out", type=Path, help="write the table to this file")
    return p.parse_args(argv)


def clip(args: argparse.Namespace, net: KEEP) -> tuple[Tensor, Tensor]:
    """Frames (T, 3, S, S) in [-1, 1], and the flow of each to the one before, (T, 2, S, S); the first is zero."""
    if args.video:
        lq = resize(low_quality(args.video, args.frames, net.image_size // 4), net.image_size)
    else:
        lq = moving_clip(1, args.frames, net.image_size)[0]
    return lq, torch.cat([torch.zeros(1, 2, *lq.shape[2:]), net.estimate_flows(lq[None])[0]])


def build(net: KEEP, args: argparse.Namespace, folder: Path, lq: Tensor, flows: Tensor) -> list[Candidate]:
    """The paths to compare; PyTorch in float32 is the first."""
    bf16 = has_bfloat16(torch.device("cpu"))
    paths = [Candidate("PyTorch float32", streamed(accelerate(net)))]
    if "pytorch" in args.only and bf16:
        paths.append(Candidate("PyTorch bfloat16", streamed(accelerate(net, "bfloat16"))))
    file, half, small = folder / "step.onnx", folder / "fp16.onnx", folder / "int8.onnx"
    if {"onnx", "openvino"} & set(args.only):
        say("exporting")
        export(net, file, flow="input")
        if args.fp16:
            export(net, half, "float16", flow="input")
        if args.int8:
            say("calibrating int8")
            quantize(file, small, lq[:16], flows[:16])
    threads = args.threads
    if "onnx" in args.only:
        paths.append(Candidate("ONNX Runtime float32", stepped(OnnxRuntime(file, threads))))
        paths += [Candidate("ONNX Runtime float16", stepped(OnnxRuntime(half, threads)))] if args.fp16 else []
        paths += [Candidate("ONNX Runtime int8", stepped(OnnxRuntime(small, threads)))] if args.int8 else []
    if "openvino" in args.only:
        paths.append(Candidate("OpenVINO float32", stepped(OpenVINO(file, threads))))
        paths += [Candidate("OpenVINO bfloat16", stepped(OpenVINO(file, threads, "bf16")))] if bf16 else []
        paths += [Candidate("OpenVINO float16", stepped(OpenVINO(half, threads)))] if args.fp16 else []
        paths += [Candidate("OpenVINO int8", stepped(OpenVINO(small, threads)))] if args.int8 else []
    if "inductor" in args.only:
        say("compiling by AOTInductor")
        export(net, folder / "step.pt2", flow="input")
        paths.append(Candidate("AOTInductor float32", stepped(Inductor(folder / "step.pt2"))))
    if len(paths) < 2:
        raise UserError("--only: name a backend to compare with PyTorch in float32")
    return paths


def streamed(net: KEEP) -> Restore:
    """As ``keep.restore`` runs PyTorch."""
    streamer, codes = Streamer(net), []
    net.code_transformer.register_forward_hook(lambda _module, _args, logits: codes.append(logits.argmax(-1)))

    def restore(lq: Tensor, flows: Tensor) -> tuple[Tensor, Tensor]:
        codes.clear()
        found = streamer.push(lq[None], flows[None, int(streamer.frames == 0) :])
        return torch.cat([frame.output.float() for frame in found]), torch.cat(codes)

    return restore


def stepped(backend: Any) -> Restore:
    """As ``keep.restore`` runs an exported step."""
    step = Stepper(backend)

    def restore(lq: Tensor, flows: Tensor) -> tuple[Tensor, Tensor]:
        found = [step(x.numpy(), f.numpy()) for x, f in zip(lq.split(1), flows.split(1), strict=True)]
        return tuple(torch.cat([torch.from_numpy(f[key]) for f in found]) for key in ("restored", "chosen"))  # type: ignore[return-value]

    return restore


def measure(paths: list[Candidate], lq: Tensor, flows: Tensor) -> None:
    """Run all paths over the clip in turns; the order changes from turn to turn."""
    for turn, (x, f) in enumerate(zip(tqdm(lq.split(AT_ONCE)), flows.split(AT_ONCE), strict=True)):
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for path in paths[turn % len(paths) :] + paths[: turn % len(paths)]:
            cpu, wall = time.process_time(), time.perf_counter()
            found[path.name] = path.restore(x, f)
            path.cpu.append((time.process_time() - cpu) / len(x))
            path.wall.append((time.perf_counter() - wall) / len(x))
        output, codes = found[paths[0].name]
        for path in paths:
            path.error.append((found[path.name][0] - output).abs().max().item())
            path.codes.append((found[path.name][1] == codes).float().mean().item())


def rows(paths: list[Candidate]) -> list[dict[str, Any]]:
    """The table; the first turn, in which libraries allocate and compile, does not count."""
    reference = paths[0]
    table = []
    for path in paths:
        ratios = [a / b for a, b in zip(reference.cpu[1:], path.cpu[1:], strict=True)]
        walls = [a / b for a, b in zip(reference.wall[1:], path.wall[1:], strict=True)]
        table.append({
            "path": path.name,
            "ms a frame (processor)": 1000 * median(path.cpu[1:]),
            "times PyTorch float32": median(ratios),
            "lowest – highest": f"{min(ratios):.2f} – {max(ratios):.2f}",
            "by the wall clock": median(walls),
            "codes equal, %": 100 * sum(path.codes) / len(path.codes),
            "largest difference": f"{max(path.error):.1e}",
        })  # fmt: skip
    return table


if __name__ == "__main__":
    sys.exit(run(bench))
