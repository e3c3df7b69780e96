"""The shipped network on the CPU in float32, and on the device: ``parity.json``.

Sixteen frames of a drawn face, degraded as by eq. (9), are restored with the accelerated network. A float32 device
computes without TF32 and should agree to 1e-3; bfloat16 should agree to 35 dB.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import keep
from keep.config import arguments
from keep.config.cli import Parser, run
from keep.data.frames import to_float
from keep.degradation.blur import GaussianBlur
from keep.degradation.noise import GaussianNoise
from keep.degradation.pipeline import Pipeline
from keep.degradation.resize import Downsample
from keep.inference.api import resize
from keep.inference.streaming import stream
from keep.utils.devices import pick_device
from keep.utils.dtypes import parse_dtype
from keep.utils.io import write_file
from scripts.drawn_vfhq import draw_face

FRAMES = 16
SIZE = 256
DTYPES = ("float32", "bfloat16", "float16")


def main(argv: Sequence[str] | None = None) -> None:
    p = Parser(prog="scripts.gpu_kit.parity", description="Compare the shipped network on the CPU and on a device.")
    p.add_argument("--device", default="cuda", help="cpu or cuda")
    p.add_argument("--frames", type=arguments.count, default=FRAMES, help=f"frames to restore ({FRAMES})")
    p.add_argument("--out", type=Path, required=True, help="folder of parity.json")
    args: argparse.Namespace = p.parse_args(argv)
    device, frames, rows = pick_device(args.device), drawn_clip(args.frames), list[dict[str, Any]]()
    expected, _ = restore(frames, torch.device("cpu"), torch.float32)
    for name in DTYPES:
        if name == "float16" and device.type == "cpu":
            continue  # slow there
        output, seconds = restore(frames, device, parse_dtype(name))
        rows.append(
            {"device": str(device), "dtype": name, "max abs error": largest(output, expected),
             "PSNR, dB": psnr(output, expected), "s": seconds}
        )  # fmt: skip
        write_file(args.out / "parity.json", json.dumps({"rows": rows}, indent=1) + "\n")
        print(rows[-1])


def drawn_clip(frames: int) -> np.ndarray:
    """A degraded clip of a drawn face that moves, uint8 RGB (frames, SIZE / 4, SIZE / 4, 3)."""
    clip = []
    for t in range(frames):
        angle, scale = 0.1 * np.sin(0.3 * t), SIZE / 512
        matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        to_frame = np.column_stack([matrix, (2 * np.sin(0.5 * t), t * 0.2)])
        colours = np.array([[220, 170, 140], [60, 40, 30], [90, 110, 150]])
        clip.append(draw_face(to_frame, SIZE, *colours, open_mouth=0.5 + 0.5 * np.sin(0.7 * t)))
    pipeline = Pipeline((GaussianBlur((1.0, 1.0)), Downsample(4), GaussianNoise((1.0, 1.0))))
    return pipeline.replay(np.stack(clip), pipeline.draw(np.random.default_rng(0)))


def restore(frames: np.ndarray, device: torch.device, dtype: torch.dtype, fast: bool = True) -> tuple[Tensor, float]:
    """The shipped network's output for a clip, float32 (T, 3, SIZE, SIZE) on the CPU, and the seconds it took.

    Without TF32, and before rounding to uint8. ``fast`` is that of :func:`keep.load_restorer`.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    restorer = keep.load_restorer(device=device, dtype=dtype, fast=fast)
    inputs = [resize(to_float(torch.from_numpy(f).permute(2, 0, 1)[None]).to(device), SIZE) for f in frames]
    start = time.perf_counter()
    outputs = [r.output[0].float().cpu() for r in stream(restorer.net, iter(inputs), **restorer.options)]
    return torch.stack(outputs), time.perf_counter() - start


def largest(a: Tensor, b: Tensor) -> float:
    """The largest absolute difference; images are in [-1, 1]."""
    return (a - b).abs().max().item()


def psnr(a: Tensor, b: Tensor) -> float:
    """In dB, of images in [-1, 1]; 100 where they are equal."""
    mse = (a.clamp(-1, 1) - b.clamp(-1, 1)).double().square().mean().item()
    return 10 * float(np.log10(4 / mse)) if mse > 4e-10 else 100.0


if __name__ == "__main__":
    sys.exit(run(main))
