"""What the error model costs: restoring with and without it, in CPU time.

    python -m scripts.bench.confidence face.mp4

The same frames are restored with and without it in turns, on one thread of the CPU. CPU time is counted, not wall time:
other work on the machine changes it less. What evidence and error model take is also counted by itself: the difference
of two long times is less certain.
"""  # fmt: skip

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from keep.config import arguments
from keep.config.cli import Parser, run
from keep.data.frames import to_float
from keep.data.images import square_resize
from keep.data.video_io import read_video
from keep.inference.api import Restorer, load_restorer, resize
from keep.inference.streaming import WINDOW, Streamer
from keep.utils.tables import markdown_table

COLUMNS = ("restored", "CPU ms a frame", "evidence and error model", "% of the rest", "% more than without")


def bench(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(1)
    restorer = load_restorer(args.weights, device="cpu", dtype=args.dtype, confidence=True)
    lq = low_quality(args.video, args.frames, restorer.net.image_size)
    model = restorer.options["confidence"]
    found = np.array([(restore(restorer, lq), restore(restorer, lq, confidence=model)) for _ in range(args.rounds + 1)])
    print(f"{args.video.name}, {len(lq)} frames, weights {args.weights}, {args.dtype}, {args.rounds} rounds\n")
    print(markdown_table(rows(1000 * found[1:] / len(lq)), COLUMNS, 1), end="")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = Parser(prog="scripts.bench.confidence", description="What the error model costs.")
    p.add_argument("video", type=Path, help="a clip of an aligned face, resized to a quarter of the output")
    p.add_argument("-w", "--weights", default="lite", help="weights with an error model: a file or a name (lite)")
    p.add_argument("--dtype", default="auto", help="as of keep-restore: auto, float32, bf16 (auto)")
    p.add_argument("--frames", type=arguments.count, default=2 * WINDOW, help="frames to use, from the first (16)")
    p.add_argument("--rounds", type=arguments.count, default=8, help="times that each way is measured (8)")
    return p.parse_args(argv)


def low_quality(video: Path, frames: int, size: int) -> Tensor:
    """The first frames, reduced to a quarter and enlarged again: (T, 3, size, size) in [-1, 1]."""
    small = torch.from_numpy(square_resize(read_video(video)[:frames], size // 4)).permute(0, 3, 1, 2)
    return resize(to_float(small), size)


class TimedStreamer(Streamer):
    """A streamer that adds up the CPU seconds of evidence and error model."""

    judging = 0.0

    def _judge(self, *args: Any) -> None:
        start = time.process_time()
        super()._judge(*args)
        self.judging += time.process_time() - start


@torch.no_grad()
def restore(restorer: Restorer, lq: Tensor, **options: Any) -> tuple[float, float]:
    """Restore frames (T, 3, S, S) window by window: CPU seconds of all, and of evidence and error model."""
    streamer = TimedStreamer(restorer.net, **options)
    start = time.process_time()
    for window in lq[None].split(WINDOW, dim=1):
        streamer.push(window)
    return time.process_time() - start, streamer.judging


def rows(times: np.ndarray) -> list[dict[str, Any]]:
    """Lines of the table, medians over the rounds: (rounds, 2 ways, all and judging), in milliseconds a frame."""
    (plain, _), (full, judging) = times.transpose(1, 2, 0)
    return [
        {COLUMNS[0]: "without", COLUMNS[1]: np.median(plain)},
        {COLUMNS[0]: "with", COLUMNS[1]: np.median(full), COLUMNS[2]: np.median(judging),
         COLUMNS[3]: 100 * np.median(judging / (full - judging)), COLUMNS[4]: 100 * np.median(full / plain - 1)},
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(run(bench))
