"""Speed of the degradation beside two plain ways to do it, measured in one run, round by round.

    python -m scripts.bench.data                                  # a synthetic clip
    python -m scripts.bench.data --root datasets/VFHQ/train       # your own clips
    python -m scripts.bench.data --rounds 21 --out bench_data.md

Every round draws eq. (9)'s parameters as in training, and degrades one clip of T = 8 frames, 512 → 128, in four ways:

- ours: ``keep.degradation`` as a loader's worker runs it;
- subprocess: the same steps, but the codec is the FFmpeg program, through ffmpeg-python (extra ``ffmpeg``);
- plain: frame by frame, ``cv2.filter2D`` with the whole 2-D kernel at full size, then resize, noise, and an MP4 file in
  memory;
- plain, 21 taps: the same with a kernel cut at 21×21, as in the public code; its σ is not the one it is told.

One thread each. What the numbers mean: docs/data.md.
"""  # fmt: skip

import argparse
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from tqdm import tqdm

from keep.config.cli import run
from keep.config.plugins import import_registered
from keep.config.registry import DATASETS
from keep.data.tools.splits import layout
from keep.data.video_io import write_video
from keep.degradation.blur import GaussianBlur
from keep.degradation.codec import FFmpeg, PyAV, VideoCodec
from keep.degradation.noise import GaussianNoise
from keep.degradation.pipeline import Pipeline
from keep.degradation.resize import Downsample
from keep.utils.errors import UserError
from keep.utils.io import write_file
from keep.utils.visual import markdown_table

SIZE, LENGTH = 512, 8
Clock = dict[str, float]
Drawn = Sequence[dict[str, Any]]
INTERPOLATION = {"area": cv2.INTER_AREA, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}
STAGES = ("blur and resize", "noise", "codec")


def bench(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    cv2.setNumThreads(0)  # as in a loader's worker
    torch.set_num_threads(1)
    import_registered()
    pipeline = chain("PyAV")
    ways: dict[str, Callable[[np.ndarray, Drawn, Clock], np.ndarray]] = {
        "ours": lambda clip, drawn, clock: staged(pipeline, clip, drawn, clock),
        "plain": lambda clip, drawn, clock: plain(clip, drawn, clock),
        "plain, 21 taps": lambda clip, drawn, clock: plain(clip, drawn, clock, taps=21),
    }
    codecs: dict[str, Any] = {"ours": PyAV(), "an MP4 in memory": MemoryFile()}
    try:
        by_process = chain("FFmpeg")
        ways["subprocess"] = lambda clip, drawn, clock: staged(by_process, clip, drawn, clock)
        codecs["subprocess"] = FFmpeg()
    except UserError as error:
        print(f"without the subprocess: {error}", file=sys.stderr)

    with tempfile.TemporaryDirectory() as folder:
        decoders = {name: dataset for name, dataset in sources(args.root, Path(folder))}
        seconds, reading, cpu, difference = measure(ways, decoders, pipeline, args.rounds)
    trips = round_trips(codecs, args.rounds)
    text = report(seconds, reading, cpu, difference, trips, args.rounds)
    print(text, end="")
    if args.out:
        write_file(args.out, text.encode())


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="scripts.bench.data", description="degradation, ours and plain, interleaved")
    p.add_argument(
        "--root", type=Path, help="folder of videos or of folders of frames, or a packed file (default: synthetic)"
    )
    p.add_argument("--rounds", type=int, default=15, help="clips that every way degrades in turn (15)")
    p.add_argument("--out", type=Path, help="write the tables to this file too")
    args = p.parse_args(argv)
    if args.rounds < 1:
        raise UserError("--rounds must be at least 1")
    if args.root is not None and not args.root.exists():
        raise UserError(f"{args.root}: no such folder or file")
    return args


def chain(backend: str) -> Pipeline:
    """Eq. (9) with the ranges of supplement A.4: the steps' defaults."""
    return Pipeline([GaussianBlur(), Downsample(), GaussianNoise(), VideoCodec(backend=backend)])


def staged(pipeline: Pipeline, clip: np.ndarray, drawn: Drawn, clock: Clock) -> np.ndarray:
    """Our chain, with the seconds under the stages' plain names."""
    own: Clock = {}
    lq = pipeline.replay(clip, drawn, clock=own)
    for name, seconds in own.items():
        stage = "codec" if "Codec" in name else "blur and resize" if "Blur" in name or "Down" in name else "noise"
        clock[stage] = clock.get(stage, 0.0) + seconds
    return lq


def plain(clip: np.ndarray, drawn: Drawn, clock: Clock, taps: int | None = None) -> np.ndarray:
    """Eq. (9) written the plain way, one frame after the other."""
    small = plain_before_codec(clip, drawn, clock, taps)
    with part(clock, "codec"):
        return MemoryFile().compress(small, **{k: v for k, v in drawn[3].items() if k != "type"})


def plain_before_codec(clip: np.ndarray, drawn: Drawn, clock: Clock, taps: int | None = None) -> np.ndarray:
    blur, resize, noise, _ = drawn
    with part(clock, "blur and resize"):
        radius = int(np.ceil(4 * blur["sigma"])) if taps is None else taps // 2
        y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
        kernel = np.exp(-(x**2 + y**2) / (2 * blur["sigma"] ** 2))
        kernel = (kernel / kernel.sum()).astype(np.float32)
        frames = []
        for frame in clip:
            blurred = cv2.filter2D(frame.astype(np.float32), -1, kernel, borderType=cv2.BORDER_REFLECT_101)
            small = (frame.shape[1] // 4, frame.shape[0] // 4)
            frames.append(cv2.resize(blurred, small, interpolation=INTERPOLATION[resize["mode"]]))
    with part(clock, "noise"):
        rng = np.random.default_rng(noise["seed"])
        field = rng.standard_normal((len(frames), *frames[0].shape), dtype=np.float32)
        frames = [frame + np.float32(noise["sigma"]) * n for frame, n in zip(frames, field, strict=True)]
        return np.stack([np.clip(np.rint(frame), 0, 255).astype(np.uint8) for frame in frames])


class MemoryFile:
    """A codec as PyAV's own examples write it: an MP4 file in memory, written and read back."""

    def compress(self, clip: np.ndarray, codec: str, crf: int, fps: int, preset: str, pix_fmt: str) -> np.ndarray:
        buffer = io.BytesIO()
        with av.open(buffer, "w", format="mp4") as container:
            stream: Any = container.add_stream(codec, rate=fps, options={"crf": str(crf), "preset": preset})
            stream.height, stream.width, stream.pix_fmt = clip.shape[1], clip.shape[2], pix_fmt
            stream.codec_context.thread_count = 1
            for image in clip:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
        buffer.seek(0)
        with av.open(buffer, "r") as container:
            container.streams.video[0].codec_context.thread_count = 1
            return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@contextmanager
def part(clock: Clock, name: str) -> Iterator[None]:
    """Add the seconds of the block to ``clock[name]``."""
    start = time.perf_counter()
    yield
    clock[name] = clock.get(name, 0.0) + time.perf_counter() - start


def sources(root: Path | None, folder: Path) -> Iterator[tuple[str, Any]]:
    """Datasets to time the reading of, by name."""
    options: dict[str, Any] = {"clip_length": LENGTH, "size": SIZE, "interval": (1, 2, 3, 4, 5, 6)}
    if root is not None:
        kind = "PackedClips" if root.is_file() else layout(root)
        yield f"{kind} {root.name}", DATASETS[kind](str(root), **options)
        return
    frames = synthetic()
    (folder / "frames" / "clip").mkdir(parents=True)
    for t, frame in enumerate(frames):
        cv2.imwrite(str(folder / "frames" / "clip" / f"{t:05d}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    (folder / "videos").mkdir()
    write_video(folder / "videos" / "clip.mp4", frames, 25)
    yield "frames, PNG", DATASETS["FrameFolders"](str(folder / "frames"), **options)
    yield "video, H.264", DATASETS["VideoClips"](str(folder / "videos"), **options)


def synthetic(frames: int = 60) -> np.ndarray:
    """uint8 (T, 512, 512, 3): textures from coarse to fine that drift over one another."""
    rng = np.random.default_rng(0)
    clip = np.full((frames, SIZE, SIZE, 3), 128, np.float32)
    for cells, strength in ((8, 50), (32, 25), (128, 12), (512, 5)):
        layer = cv2.resize(rng.normal(0, strength, (cells, cells, 3)).astype(np.float32), (SIZE, SIZE))
        speed = rng.uniform(-2, 2, 2)
        for t in range(frames):
            clip[t] += np.roll(layer, tuple(np.rint(speed * t).astype(int)), (0, 1))
    return np.clip(np.rint(clip), 0, 255).astype(np.uint8)


def measure(
    ways: dict[str, Callable[[np.ndarray, Drawn, Clock], np.ndarray]],
    decoders: dict[str, Any],
    pipeline: Pipeline,
    rounds: int,
) -> tuple[dict[str, list[Clock]], dict[str, list[float]], dict[str, list[float]], list[float]]:
    """Way → seconds by stage, one a round; source → seconds of reading a clip; the same in CPU time, with ``ours``;
    and the mean absolute difference of our clips and the plain ones before the codec, in grey levels."""
    seconds: dict[str, list[Clock]] = {name: [] for name in ways}
    reading: dict[str, list[float]] = {name: [] for name in decoders}
    cpu: dict[str, list[float]] = {name: [] for name in ("ours", *decoders)}
    difference = []
    for i in tqdm(range(-1, rounds), desc="rounds", delay=2, leave=False):  # round -1 warms up
        truth: Any = None
        for name, dataset in decoders.items():
            start, busy = time.perf_counter(), time.process_time()
            truth = dataset.ground_truth(0, i + 1)
            reading[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - busy)
        drawn = pipeline.draw(truth.rng)
        names = list(ways)
        for name in names[i % len(names) :] + names[: i % len(names)]:  # nobody is always first
            clock: Clock = {}
            busy = time.process_time()
            ways[name](truth.gt, drawn, clock)
            seconds[name].append(clock)
            if name in cpu:
                cpu[name].append(time.process_time() - busy)
        ours, theirs = pipeline.before_codec(truth.gt, drawn), plain_before_codec(truth.gt, drawn, {})
        difference.append(float(np.abs(ours.astype(np.float32) - theirs).mean()))
    warm: Any = tuple({k: v[1:] for k, v in table.items()} for table in (seconds, reading, cpu))
    return *warm, difference[1:]


def round_trips(codecs: dict[str, Any], rounds: int) -> dict[str, list[float]]:
    """Codec → seconds of 20 frames of 128×128 there and back, one a round."""
    clip = np.stack([cv2.resize(f, (128, 128), interpolation=cv2.INTER_AREA) for f in synthetic(20)])
    seconds: dict[str, list[float]] = {name: [] for name in codecs}
    for i in tqdm(range(-1, rounds), desc="codecs", delay=2, leave=False):
        crf = 25 + 4 * i % 21
        for name, codec in codecs.items():
            start = time.perf_counter()
            codec.compress(clip, "libx264", crf, 25, "medium", "yuv420p")
            seconds[name].append(time.perf_counter() - start)
    return {k: v[1:] for k, v in seconds.items()}


def report(
    seconds: dict[str, list[Clock]],
    reading: dict[str, list[float]],
    cpu: dict[str, list[float]],
    difference: list[float],
    trips: dict[str, list[float]],
    rounds: int,
) -> str:
    median = statistics.median
    rows = []
    for stage in (*STAGES, "all"):
        times = {
            w: [c.get(stage, 0.0) if stage in STAGES else sum(c.values()) for c in cs] for w, cs in seconds.items()
        }
        row: dict[str, Any] = {"ms a clip": stage, **{w: 1e3 * median(t) for w, t in times.items()}}
        rows.append({**row, **{f"{w} / ours": ratio(t, times["ours"]) for w, t in times.items() if w != "ours"}})
    texts = [
        f"{LENGTH} frames, {SIZE} → {SIZE // 4}, one thread, {rounds} rounds: medians (the ratios' lowest – highest).",
        markdown_table(rows, list(rows[0]), digits=1),
        f"Before the codec, ours and plain differ by {max(difference):.4f} of 255 grey levels (the worst clip's mean).",
    ]
    whole = {w: [sum(c.values()) for c in cs] for w, cs in seconds.items()}
    rows = []
    for name, read in reading.items():
        row = {"with reading": name, "ms to read": 1e3 * median(read)}
        for way, times in whole.items():
            both = [r + t for r, t in zip(read, times, strict=True)]
            row[f"{way}, clips/s"] = 1 / median(both)
            if way == "plain":
                row["plain / ours"] = ratio(both, [r + t for r, t in zip(read, whole["ours"], strict=True)])
        rows.append(row)
    texts.append(markdown_table(rows, list(rows[0]), digits=1))
    rows = []
    for name in reading:
        read, ours = statistics.fmean(cpu[name]), statistics.fmean(cpu["ours"])
        row = {"CPU time, mean": name, "ms to read": 1e3 * read, "ms to degrade, ours": 1e3 * ours}
        rows.append({**row, "clips/s a core": 1 / (read + ours), "16 workers": 16 / (read + ours)})
    texts.append(markdown_table(rows, list(rows[0]), digits=1))
    rows = [
        {"codec, 20 frames of 128×128": k, "ms": 1e3 * median(v), "/ ours": ratio(v, trips["ours"])}
        for k, v in trips.items()
    ]
    texts.append(markdown_table(rows, list(rows[0]), digits=1))
    return "\n\n".join(t.strip() for t in texts) + "\n"


def ratio(times: Sequence[float], ours: Sequence[float]) -> str:
    """Median, lowest and highest of the rounds' ratios."""
    ratios = [a / max(b, 1e-9) for a, b in zip(times, ours, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} – {max(ratios):.2f})"


if __name__ == "__main__":
    sys.exit(run(bench))
