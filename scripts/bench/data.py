"""Speed of the degradation beside two plain implementations, measured in one run, round by round.

    python -m scripts.bench.data                                  # a synthetic clip
    python -m scripts.bench.data --root datasets/VFHQ/train       # your own clips
    python -m scripts.bench.data --rounds 21 --out bench_data.md

Every round draws the parameters of eq. (9) as in training, and degrades one clip of T = 8 frames, 512 → 128, in four
ways:

- ours: ``keep.degradation`` as a loader's worker runs it;
- subprocess: the same steps, but the codec is the FFmpeg program, through ffmpeg-python (extra ``ffmpeg``);
- plain: frame by frame, ``cv2.filter2D`` with the full 2-D kernel at full size, then resize, noise, and an MP4 file in
  memory;
- plain, 21 taps: the same with a kernel cut at 21×21, as in the public code; the cut makes its σ smaller.

Each uses one thread. docs/data.md explains the numbers.
"""  # fmt: skip

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from tqdm import tqdm

from keep.config import arguments
from keep.config.cli import Parser, run
from keep.config.plugins import import_registered
from keep.config.registry import DATASETS
from keep.data.tools.layout import dataset_for
from keep.data.video_io import write_video
from keep.degradation.blur import GaussianBlur
from keep.degradation.codec import FFmpeg, PyAV, VideoCodec
from keep.degradation.noise import GaussianNoise
from keep.degradation.pipeline import Drawn, Pipeline
from keep.degradation.resize import Downsample
from keep.utils.errors import UserError
from keep.utils.io import write_file
from scripts.bench.data_tables import Seconds, Times, report

SIZE, LENGTH = 512, 8
Implementation = Callable[[np.ndarray, Sequence[Drawn], Seconds], np.ndarray]
"""(clip, drawn parameters, seconds to add to) → degraded clip."""
INTERPOLATION = {"area": cv2.INTER_AREA, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}


def bench(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    cv2.setNumThreads(0)  # as in a loader's worker
    torch.set_num_threads(1)
    import_registered()
    pipeline = chain("PyAV")
    implementations: dict[str, Implementation] = {
        "ours": partial(run_pipeline, pipeline),
        "plain": plain,
        "plain, 21 taps": partial(plain, taps=21),
    }
    codecs: dict[str, Any] = {"ours": PyAV(), "an MP4 in memory": MemoryFile()}
    try:
        implementations["subprocess"] = partial(run_pipeline, chain("FFmpeg"))
        codecs["subprocess"] = FFmpeg()
    except UserError as error:
        print(f"skipped the subprocess: {error}", file=sys.stderr)

    with tempfile.TemporaryDirectory() as folder:
        datasets = dict(sources(args.root, Path(folder)))
        times = measure(implementations, datasets, pipeline, args.rounds)
    head = f"{LENGTH} frames, {SIZE} → {SIZE // 4}, one thread, {args.rounds} rounds"
    text = report(f"{head}: medians (the ratios' lowest – highest).", times, round_trips(codecs, args.rounds))
    print(text, end="")
    if args.out:
        write_file(args.out, text)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = Parser(prog="scripts.bench.data", description="Speed of the degradation, ours and plain.")
    p.add_argument(
        "--root",
        type=Path,
        help="folder of videos or of folders of frames, or a packed file (default: a synthetic clip)",
    )
    p.add_argument(
        "--rounds",
        type=arguments.count,
        default=15,
        help="rounds; in each, every implementation degrades one clip (15)",
    )
    p.add_argument("--out", type=Path, help="also write the tables to this file")
    args = p.parse_args(argv)
    if args.root is not None and not args.root.exists():
        raise UserError(f"{args.root}: no such folder or file")
    return args


def chain(backend: str) -> Pipeline:
    """Eq. (9) with the ranges of supplement A.4, which are the defaults of the steps."""
    return Pipeline([GaussianBlur(), Downsample(), GaussianNoise(), VideoCodec(backend=backend)])


def run_pipeline(pipeline: Pipeline, clip: np.ndarray, drawn: Sequence[Drawn], clock: Seconds) -> np.ndarray:
    """Our pipeline; the seconds of its steps are added up by stage."""
    by_step: Seconds = {}
    lq = pipeline.replay(clip, drawn, clock=by_step)
    for name, seconds in by_step.items():
        stage = "codec" if "Codec" in name else "blur and resize" if "Blur" in name or "Down" in name else "noise"
        clock[stage] = clock.get(stage, 0.0) + seconds
    return lq


def plain(clip: np.ndarray, drawn: Sequence[Drawn], clock: Seconds, taps: int | None = None) -> np.ndarray:
    """Eq. (9) in plain code, frame by frame."""
    small = plain_before_codec(clip, drawn, clock, taps)
    with part(clock, "codec"):
        return MemoryFile().compress(small, **{k: v for k, v in drawn[3].items() if k != "type"})


def plain_before_codec(clip: np.ndarray, drawn: Sequence[Drawn], clock: Seconds, taps: int | None = None) -> np.ndarray:
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
    """A codec as in PyAV's examples: an MP4 file in memory, written and read back."""

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
def part(clock: Seconds, name: str) -> Iterator[None]:
    """Add the seconds of the block to ``clock[name]``."""
    start = time.perf_counter()
    yield
    clock[name] = clock.get(name, 0.0) + time.perf_counter() - start


def sources(root: Path | None, folder: Path) -> Iterator[tuple[str, Any]]:
    """Names and datasets whose reading is timed."""
    options: dict[str, Any] = {"clip_length": LENGTH, "size": SIZE, "interval": (1, 2, 3, 4, 5, 6)}
    if root is not None:
        kind = "PackedClips" if root.is_file() else dataset_for(root)
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
    """uint8 (T, 512, 512, 3): textures from coarse to fine, each moving at its own speed."""
    rng = np.random.default_rng(0)
    clip = np.full((frames, SIZE, SIZE, 3), 128, np.float32)
    for cells, strength in ((8, 50), (32, 25), (128, 12), (512, 5)):
        layer = cv2.resize(rng.normal(0, strength, (cells, cells, 3)).astype(np.float32), (SIZE, SIZE))
        speed = rng.uniform(-2, 2, 2)
        for t in range(frames):
            clip[t] += np.roll(layer, tuple(np.rint(speed * t).astype(int)), (0, 1))
    return np.clip(np.rint(clip), 0, 255).astype(np.uint8)


def measure(
    implementations: dict[str, Implementation], datasets: dict[str, Any], pipeline: Pipeline, rounds: int
) -> Times:
    """Read and degrade a clip in every way, round by round."""
    times = Times(
        degrading={name: [] for name in implementations},
        reading={name: [] for name in datasets},
        cpu={name: [] for name in ("ours", *datasets)},
        difference=[],
    )
    names = list(implementations)
    for i in tqdm(range(-1, rounds), desc="rounds", delay=2, leave=False):
        truth: Any = None
        for name, dataset in datasets.items():
            start, busy = time.perf_counter(), time.process_time()
            truth = dataset.ground_truth(0, i + 1)
            times.reading[name].append(time.perf_counter() - start)
            times.cpu[name].append(time.process_time() - busy)
        drawn = pipeline.draw(truth.rng)
        for name in names[i % len(names) :] + names[: i % len(names)]:  # the order changes: the first may be slower
            clock: Seconds = {}
            busy = time.process_time()
            implementations[name](truth.gt, drawn, clock)
            times.degrading[name].append(clock)
            if name in times.cpu:
                times.cpu[name].append(time.process_time() - busy)
        ours, theirs = pipeline.before_codec(truth.gt, drawn), plain_before_codec(truth.gt, drawn, {})
        times.difference.append(float(np.abs(ours.astype(np.float32) - theirs).mean()))
        if i < 0:  # the first round only warms up
            for values in (*times.degrading.values(), *times.reading.values(), *times.cpu.values(), times.difference):
                values.clear()
    return times


def round_trips(codecs: dict[str, Any], rounds: int) -> dict[str, list[float]]:
    """Codec → seconds to encode and decode 20 frames of 128×128, one value a round."""
    clip = np.stack([cv2.resize(f, (128, 128), interpolation=cv2.INTER_AREA) for f in synthetic(20)])
    seconds: dict[str, list[float]] = {name: [] for name in codecs}
    for i in tqdm(range(-1, rounds), desc="codecs", delay=2, leave=False):
        crf = 25 + 4 * i % 21
        for name, codec in codecs.items():
            start = time.perf_counter()
            codec.compress(clip, "libx264", crf, 25, "medium", "yuv420p")
            seconds[name].append(time.perf_counter() - start)
    return {k: v[1:] for k, v in seconds.items()}


if __name__ == "__main__":
    sys.exit(run(bench))
