"""Streaming a clip: its jumps at window borders, compared with a reset every 20 frames; and its memory by length.

    python -m scripts.bench.streaming face.mp4 -w WEIGHTS --out borders.png

The public code restarts its recurrence every 20 frames; :mod:`keep.inference.streaming` keeps the state. The change
between neighbouring frames, |ŷ_t − ŷ_{t−1}|, is compared at the borders and elsewhere, for outputs and gains. Then 20
and 200 frames, the clip played forwards and backwards, are streamed, and the peak memory of each is reported.
"""  # fmt: skip

import argparse
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from keep.archs.keep import KEEP
from keep.config import arguments
from keep.config.cli import Parser, run
from keep.data.frames import to_float
from keep.data.images import square_resize
from keep.data.video_io import read_video
from keep.inference.api import load_restorer, resize
from keep.inference.fast import keep_freed_memory
from keep.inference.streaming import WINDOW, stream
from keep.utils.errors import UserError
from keep.utils.figures import write_figure
from keep.utils.style import PALETTE
from keep.utils.tables import markdown_table
from scripts.bench.common import peak_of_memory, start_of_memory

RESET = 20
"""Frames after which the public code restarts."""
LENGTHS = (20, 200)
"""Frames of the clips whose memory is compared."""


def bench(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(1)
    net = load_restorer(args.weights, device=args.device).net
    lq = low_quality(args.video, args.frames, net.image_size // 4)
    paths = {
        f"ours, windows of {WINDOW}": (stream(net, each(lq.split(1), net), window=WINDOW), WINDOW),
        f"reset every {RESET} frames": (with_resets(net, lq), RESET),
    }
    rows: list[dict[str, Any]] = []
    for name, (frames, every) in paths.items():
        output, gains = collect(frames, len(lq), name)
        for what, values in (("output", output), ("gain", gains)):
            at, elsewhere = jumps(values, every)
            shown = {"at borders": f"{at:.2e}", "elsewhere": f"{elsewhere:.2e}"}
            rows.append({"path": name, "of": what, **shown, "ratio": at / elsewhere})
    print(f"{args.video.name}, {len(lq)} frames, {net.image_size}×{net.image_size}, weights {args.weights}\n")
    print(markdown_table(rows, list(rows[0]), 2), end="")
    print(f"\n{markdown_table(memory(net, lq), ['frames', 'peak memory, MiB'], 1)}", end="")
    if args.out:
        write_figure(args.out, lambda figure: draw(figure, rows), (6.4, 3.2))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = Parser(prog="scripts.bench.streaming", description="Jumps and memory of a streamed clip.")
    p.add_argument("video", type=Path, help="a clip of an aligned face, resized to a quarter of the output")
    p.add_argument("-w", "--weights", required=True, help="a weights file, or the name of a public one")
    p.add_argument("--frames", type=arguments.count, default=100, help="number of frames to use, from the first")
    p.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    p.add_argument("--out", type=Path, help="write a bar chart to this file (PNG or SVG)")
    return p.parse_args(argv)


def low_quality(video: Path, frames: int, size: int) -> Tensor:
    """The clip's first frames, resized: (T, 3, size, size) in [-1, 1]."""
    found = read_video(video)[:frames]
    if len(found) <= RESET + 2:
        raise UserError(f"{video}: has {len(found)} frames; a border every {RESET} frames needs more than {RESET + 2}")
    return to_float(torch.from_numpy(square_resize(found, size)).permute(0, 3, 1, 2))


def each(frames: Iterable[Tensor], net: KEEP) -> Iterator[Tensor]:
    """Frames (1, 3, h, w) at the network's size, one by one."""
    device = net.codebook.embedding.weight.device
    return (resize(frame.to(device), net.image_size) for frame in frames)


def with_resets(net: KEEP, lq: Tensor) -> Iterator[Any]:
    """As the public code: every :data:`RESET` frames a new clip begins."""
    for piece in lq.split(RESET):
        yield from stream(net, each(piece.split(1), net), window=WINDOW)


def collect(frames: Iterator[Any], count: int, name: str) -> tuple[Tensor, Tensor]:
    """Outputs (T, 3, S, S) and gains (T, 1, h, w)."""
    restored = [(f.output[0].cpu(), f.gain[0].cpu()) for f in tqdm(frames, desc=name, total=count, leave=False)]
    return torch.stack([r[0] for r in restored]), torch.stack([r[1] for r in restored])


def jumps(values: Tensor, every: int) -> tuple[float, float]:
    """Mean |x_t − x_{t−1}| where a window begins, and elsewhere; from t = 2, as the first gain is unused."""
    change = (values[2:] - values[1:-1]).abs().flatten(1).mean(1)
    border = torch.arange(2, len(values)) % every == 0
    return change[border].mean().item(), change[~border].mean().item()


def memory(net: KEEP, lq: Tensor) -> list[dict[str, Any]]:
    """Peak memory above the start for each of :data:`LENGTHS`, after a first pass that fills caches."""
    device = net.codebook.embedding.weight.device
    rows = []
    for length in (LENGTHS[0], *LENGTHS):
        keep_freed_memory(False)  # glibc's pool goes back to the system
        before = start_of_memory(device)
        frames = stream(net, islice(each(back_and_forth(lq), net), length))
        deque(tqdm(frames, desc=f"{length} frames", total=length, leave=False, delay=2), maxlen=0)
        rows.append({"frames": length, "peak memory, MiB": (peak_of_memory(device) - before) / 2**20})
    return rows[1:]


def back_and_forth(lq: Tensor) -> Iterator[Tensor]:
    """The clip's frames (1, 3, h, w) forwards, backwards, forwards, …"""
    return cycle([*lq.split(1), *lq.flip(0)[1:-1].split(1)])


def draw(figure: Any, rows: Sequence[dict[str, Any]]) -> None:
    """A bar chart of the ratios."""
    axes = figure.subplots()
    paths = list(dict.fromkeys(row["path"] for row in rows))
    for i, what in enumerate(("output", "gain")):
        ratios = [row["ratio"] for row in rows if row["of"] == what]
        bars = axes.bar(
            np.arange(len(paths)) + (i - 0.5) * 0.36, ratios, 0.34, color=PALETTE[i], label=f"of the {what}"
        )
        axes.bar_label(bars, fmt="%.2f")
    axes.axhline(1, color="grey", linewidth=0.8)
    axes.set_xticks(range(len(paths)), paths)
    axes.set_ylabel("change at borders / elsewhere")
    axes.legend(frameon=False, loc="upper left")


if __name__ == "__main__":
    sys.exit(run(bench))
