"""Show what the network will see: a contact sheet, a short clip, and the time of each step.

    keep-data preview -opt options/train/stage2_kalman.yml
    keep-data preview -opt options/test/vfhq_heavy.yml --clips 3 --out look

Takes the options file of a training or a test and writes into ``--out``

- ``sheet.png``: a row a sample: the parameters drawn, the truth, and input frames enlarged as the network gets them;
- ``clip.mp4``: the samples as video, input beside truth, above the parameters drawn;

and prints the time of each step on one core, and the clips per second of the loader. The loader has the file's
``workers``, but no more than the machine has cores.
"""  # fmt: skip

import argparse
import json
import os
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from keep.config import arguments, cli
from keep.config.cli import check_output
from keep.config.reading import read_yaml
from keep.config.schema import TestConfig, TrainConfig
from keep.data.frames import to_float, to_uint8
from keep.data.sampler import make_loader
from keep.data.video_io import write_video
from keep.degradation.resize import upsample
from keep.utils.errors import UserError
from keep.utils.figures import write_figure
from keep.utils.pictures import side_by_side
from keep.utils.progress import progress_bar
from keep.utils.style import DARK, LIGHT, STYLE
from keep.utils.tables import console_table

COLUMNS = 5
"""Input frames of a sample on the sheet."""
MAX_FRAMES = 48
"""Frames shown of a clip that is read in full."""


@dataclass
class Sample:
    """One sample as pictures.

    Attributes:
        name: name of its clip.
        drawn: parameters drawn, a line a step.
        truth: uint8 (T, H, W, 3).
        input: the low-quality frames, enlarged to the same size.
        side: side of the low-quality frames, in pixels.
    """

    name: str
    drawn: list[str]
    truth: np.ndarray
    input: np.ndarray
    side: int


def preview(argv: Sequence[str] | None) -> None:
    args = parse(argv)
    is_test = args.opt is not None and "restorers" in read_yaml(Path(args.opt)).data
    config: Any = cli.read_options(args, TestConfig) if is_test else cli.read_options(args, TrainConfig)
    if config is None:
        return
    part, dataset, has_clip_length = open_part(config, args)
    count = args.clips if has_clip_length else min(args.clips, len(dataset) - args.first)
    if count < 1:
        raise UserError(f"--first {args.first}: data.{part} has {len(dataset)} clips, counted from 0")
    positions = progress_bar(range(args.first, args.first + count), desc="reading", unit=" clips", delay=2, leave=False)
    samples = [to_sample(dataset[config.seed, i]) for i in positions]
    args.out.mkdir(parents=True, exist_ok=True)
    draw_sheet(samples, args.out / "sheet.png", f"{args.opt}, data.{part}, seed {config.seed}")
    draw_clip(samples, args.out / "clip.mp4", fps=8 if has_clip_length else 25)
    print(f"{args.out}/sheet.png and {args.out}/clip.mp4: {count} samples of data.{part} ({len(dataset)} clips)")
    if args.timed:
        count = args.timed if has_clip_length else min(args.timed, len(dataset))
        report_speed(dataset, config.seed, count, getattr(config.data, "workers", 0))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = cli.parser("keep-data preview", "Show what the network will see, and time the loader.")
    p.add_argument("--part", help="dataset to show: train or val, or a split of a test (default: the first)")
    p.add_argument("--clips", type=arguments.count, default=6, help="number of samples to show (6)")
    p.add_argument("--first", type=arguments.count_or_none, default=0, help="position of the first sample (0)")
    p.add_argument(
        "--timed", type=arguments.count_or_none, default=16, help="number of samples to time (16); 0: no timing"
    )
    p.add_argument("--out", type=Path, default=Path("preview"), help="folder for sheet.png and clip.mp4 (preview)")
    args = p.parse_args(argv)
    check_output(args.out)
    return args


def open_part(config: Any, args: argparse.Namespace) -> tuple[str, Any, bool]:
    """The dataset to show: its name in the options, the dataset, and whether its clips have a fixed length.

    Raises:
        UserError: ``--part`` names no dataset of the options.
    """
    parts = config.data if isinstance(config.data, dict) else {"train": config.data.train, "val": config.data.val}
    part = args.part or next(iter(parts))
    spec = parts.get(part)
    if spec is None:
        known = ", ".join(k for k in parts if parts[k])
        raise UserError(f"{args.opt}: there is no data.{part} to show; known: {known}")
    if spec.options["clip_length"] is not None:
        return part, spec.build(), True
    # The start of a clip is enough to show and to time.
    return part, spec.build(max_frames=min(spec.options["max_frames"] or MAX_FRAMES, MAX_FRAMES)), False


def to_sample(item: dict[str, Any]) -> Sample:
    """A dataset's sample as pictures."""
    truth, lq = item["gt"], item.get("lq", item["gt"])
    scale = truth.shape[-1] // lq.shape[-1]
    enlarged = to_uint8(upsample(to_float(lq), scale)) if scale > 1 else lq
    drawn = [describe_step(step) for step in json.loads(item["degradation"])] or ["not degraded"]
    truth, enlarged = truth.permute(0, 2, 3, 1).numpy(), enlarged.permute(0, 2, 3, 1).numpy()
    return Sample(item["name"], drawn, truth, enlarged, lq.shape[-1])


def describe_step(step: dict[str, Any]) -> str:
    """A step's record as text, e.g. ``GaussianBlur: sigma 5.31``, without seeds."""
    values = {k: v for k, v in step.items() if k not in ("type", "seed") and v is not None}
    text = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())
    return f"{step['type']}: {text}" if text else step["type"]


def draw_sheet(samples: Sequence[Sample], path: Path, title: str) -> None:
    """A row a sample: the parameters drawn, the first true frame, and input frames spread over the clip."""

    def draw(figure: Any) -> None:
        figure.suptitle(title, fontsize=11)
        grid = figure.add_gridspec(len(samples), COLUMNS + 2, width_ratios=[1.1, *[1] * (COLUMNS + 1)])
        for row, sample in enumerate(samples):
            length = len(sample.truth)
            times = dict.fromkeys(int(t) for t in np.linspace(0, length - 1, COLUMNS).round())
            panels = [("truth, frame 1", sample.truth[0])]
            panels += [(f"input, frame {t + 1} of {length}", sample.input[t]) for t in times]
            write_parameters(figure.add_subplot(grid[row, 0]), sample)
            for column, (caption, image) in enumerate(panels, 1):
                axes = figure.add_subplot(grid[row, column])
                axes.imshow(image)
                axes.set_axis_off()
                axes.set_title(caption, size=8, pad=3)

    write_figure(path, draw, size=(2.1 * (COLUMNS + 2), 2.3 * len(samples) + 0.4))


def write_parameters(axes: Any, sample: Sample) -> None:
    """Write name, size and parameters of a sample as text."""
    axes.set_axis_off()
    name = textwrap.fill(sample.name, 32)
    size = f"{len(sample.truth)} frames, {sample.side} px from {sample.truth.shape[2]}"
    lines = [textwrap.fill(line, 36, subsequent_indent="    ") for line in (size, *sample.drawn)]
    style: dict[str, Any] = {"va": "top", "linespacing": 1.4, "transform": axes.transAxes, "parse_math": False}
    axes.text(0, 1, name, size=8, weight="bold", **style)
    axes.text(0, 1, "\n" * (name.count("\n") + 1) + "\n".join(lines), size=8, **style)


def draw_clip(samples: Sequence[Sample], path: Path, fps: int) -> None:
    """The samples one after another: input beside truth, above the parameters drawn. Short clips play twice."""

    def frames() -> Iterator[np.ndarray]:
        for sample in samples:
            below = None
            for _ in range(2 if len(sample.truth) < 2 * fps else 1):
                for pair in side_by_side({"input": sample.input, "truth": sample.truth}):
                    below = caption([sample.name, "; ".join(sample.drawn)], pair.shape[1]) if below is None else below
                    yield np.concatenate([pair, below])

    write_video(
        path, progress_bar(frames(), desc="writing the clip", unit=" frames", delay=2, leave=False), fps, crf=16
    )


def caption(lines: Sequence[str], width: int) -> np.ndarray:
    """Lines of text as an image, uint8 (height, width, 3); the font of a long line shrinks to fit."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = 2 * (8 + 11 * len(lines))
    with rc_context(STYLE):
        figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor="#" + bytes(DARK).hex())
        canvas = FigureCanvasAgg(figure)
        for i, line in enumerate(lines):
            text = figure.text(
                0.5, 1 - (i + 0.5) / len(lines), line, color="#" + bytes(LIGHT).hex(), size=10, ha="center",
                va="center", parse_math=False,
            )  # fmt: skip
            text.set_fontsize(10 * min(1, 0.97 * width / text.get_window_extent().width))
        canvas.draw()
        return np.array(canvas.buffer_rgba())[:height, :width, :3]


def report_speed(dataset: Any, seed: int, count: int, workers: int) -> None:
    """Print the time of each step on one core, and the clips per second of the loader."""
    cv2.setNumThreads(0)  # as in a loader's worker
    torch.set_num_threads(1)
    seconds: dict[str, float] = {"decode, crop, resize": 0.0}
    for i in progress_bar(range(count), desc="timing the steps", unit=" clips", delay=2, leave=False):
        start = time.perf_counter()
        part, *key = dataset.locate_sample(seed, i)
        truth = part.ground_truth(*key)
        seconds["decode, crop, resize"] += time.perf_counter() - start
        if part.pipeline:
            part.degrade(truth, part.pipeline.draw(truth.rng), clock=seconds)
    total = sum(seconds.values())
    rows = [
        {"step": k, "ms a clip": 1e3 * s / count, "share, %": 100 * s / total}
        for k, s in [*seconds.items(), ("all", total)]
    ]
    print(f"\none core, mean of {count} clips ({count / total:.1f} clips/s):")
    print(console_table(rows, ["step", "ms a clip", "share, %"], digits=1))

    available = cores()
    reduced = ""
    if workers > available:
        reduced = f" (not {workers}: this machine has {available} core{'s' * (available > 1)})"
        workers = available
    start = time.perf_counter()
    loader = make_loader(dataset, seed, 1, stop=count, workers=workers)
    for _ in progress_bar(loader, desc="timing the loader", unit=" clips", delay=2, leave=False):
        pass
    rate = count / (time.perf_counter() - start)
    print(f"loader, workers: {workers}{reduced}: {rate:.1f} clips/s, including the start of its processes")


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(preview, argv)
