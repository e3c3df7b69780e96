"""Cost of restoring a video: seconds a frame by part, and peak memory by length.

    python -m scripts.bench.restore                                 # time, 720p, the released network's size
    python -m scripts.bench.restore --memory                          # peak memory of 300 and 3,000 frames
    python -m scripts.bench.restore --video clip.mp4 -w KEEP          # your own video and weights

The video is synthetic (a drawn face that moves in front of noise, 1280×720) and the weights are random: neither changes
the cost. Each measurement of memory runs in a new process; all are compared with the first.
"""  # fmt: skip

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from keep.config import arguments, cli
from keep.data.video_io import write_video
from keep.utils.errors import UserError

HEIGHT, WIDTH = 720, 1280


def frames(count: int) -> Iterator[np.ndarray]:
    """A face of 300 px that moves in front of smooth noise; uint8 (720, 1280, 3)."""
    rng = np.random.default_rng(0)
    room = cv2.resize(rng.integers(40, 200, (45, 80, 3), np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    for t in range(count):
        image = room.copy()
        x, y = face_at(t)
        cv2.ellipse(image, (x, y), (115, 150), 0, 0, 360, (205, 160, 135), -1, cv2.LINE_AA)
        for dx, dy, w, h in ((-45, -30, 20, 10), (45, -30, 20, 10), (0, 20, 10, 25), (0, 75, 45, 12)):
            cv2.ellipse(image, (x + dx, y + dy), (w, h), 0, 0, 360, (80, 40, 40), -1, cv2.LINE_AA)
        yield image


def face_at(t: int) -> tuple[int, int]:
    """Centre of the face in frame t, (x, y)."""
    return round(640 + 300 * np.sin(t / 40)), round(360 + 60 * np.sin(t / 23))


class DrawnFaceDetector:
    """A detector that returns the position of the drawn face: real detectors may miss a drawing.

    Args:
        real: a real detector, which is run for its time; None: no such time.
    """

    def __init__(self, real: Any) -> None:
        self.real, self.t = real, 0

    def __call__(self, frame: np.ndarray) -> list[Any]:
        from keep.faces.detect import Face

        if self.real is not None:
            self.real(frame)
        x, y = face_at(self.t)
        self.t += 1
        box = np.array([x - 115, y - 150, x + 115, y + 150], np.float32)
        points = np.array([(-45, -30), (45, -30), (0, 30), (-35, 75), (35, 75)], np.float32)
        return [Face(box, points + np.array([x, y], np.float32), 0.9)]


class Identity:
    """A network that returns its input."""

    def __init__(self, size: int) -> None:
        self.size, self.window = size, 8

    def begin(self) -> Any:
        return lambda crops: crops


def network(args: argparse.Namespace) -> Any:
    """The network that ``--size`` or ``-w`` names."""
    from keep.config.registry import ARCHS
    from keep.flow.dis import DIS
    from keep.flow.gmflow import GMFlow
    from keep.inference.api import Restorer, load_restorer
    from keep.inference.fast import accelerate
    from keep.inference.video import KeepNetwork

    if args.weights:
        return KeepNetwork(load_restorer(args.weights, args.device))
    if args.size == "none":
        return Identity(512)
    sizes: dict[str, Any] = (
        {} if args.size == "released" else {"channels": 16, "transformer_layers": 2, "kalman_blocks": 1}
    )
    flow = GMFlow(random_weights=True) if args.size == "released" else DIS()
    net = accelerate(ARCHS.spec({"type": "KEEP", **sizes}).build(flow=flow))
    return KeepNetwork(Restorer(net.to(args.device)))


def measure(args: argparse.Namespace, video: Path, folder: Path) -> Any:
    """Restore the video; returns the summary of the run."""
    from keep.faces.detect import default_detector
    from keep.inference.video import Settings, Tools, restore_video

    real = None if args.detector == "none" else default_detector().to(args.device)
    detector = real if args.video else DrawnFaceDetector(real)
    return restore_video(video, folder / "out.mp4", Tools(network(args), detector), Settings(preset=args.preset))


def show(summary: Any) -> None:
    """Print the parts, the most expensive first, and the ratio of all other parts to the network."""
    total = sum(summary.seconds.values())
    print(f"{'part':<12}{'ms a frame':>12}{'share':>9}")
    for part, seconds in sorted(summary.seconds.items(), key=lambda item: -item[1]):
        print(f"{part:<12}{1000 * seconds / summary.frames:>12.1f}{100 * seconds / total:>8.1f}%")
    spent = summary.seconds.get("network", 0.0)
    print(f"all but the network / the network: {(total - spent) / max(spent, 1e-9):.3f}")
    slowest = max(summary.seconds.values())
    print(f"{summary.elapsed:.2f} s in all; parts run at the same time, the slowest takes {slowest:.2f} s")
    print(f"peak memory: {summary.memory:.0f} MiB ({summary.frames} frames)")


def memory(args: argparse.Namespace, folder: Path) -> None:
    """Print the peak memory of each length, measured in a new process, and its ratio to the first."""
    first = None
    for count in args.lengths:
        command = [sys.executable, __file__, "--frames", str(count), "--size", args.size, "--detector", args.detector]
        command += ["--device", args.device, "--preset", args.preset]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        if done.returncode:
            raise UserError(f"the run of {count} frames failed: {done.stderr.strip().splitlines()[-1]}")
        line = next(line for line in done.stdout.splitlines() if line.startswith("peak memory"))
        mib = float(line.split()[2])
        first = first or mib
        print(f"{count:>6} frames: {mib:.0f} MiB, {mib / first:.3f} of the first", flush=True)


def bench(argv: Sequence[str] | None = None) -> None:
    p = cli.Parser(prog="scripts.bench.restore", description="Cost of restoring a video, by part.")
    p.add_argument("--frames", type=arguments.count, default=24, help="length of the synthetic video")
    p.add_argument(
        "--size",
        choices=("released", "small", "none"),
        default="released",
        help="the network, at 512×512",
    )
    p.add_argument("-w", "--weights", help="weights to use instead")
    p.add_argument("--video", type=Path, help="a video to use instead")
    p.add_argument("--detector", choices=("default", "none"), default="default", help="none: skip detection")
    p.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    p.add_argument("--preset", default="medium", help="preset of the encoder")
    p.add_argument("--memory", action="store_true", help="measure the peak memory by length instead")
    p.add_argument(
        "--lengths", type=arguments.count, nargs="+", default=[300, 3000], help="numbers of frames for --memory"
    )
    args = p.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.memory:
            memory(args, folder)
            return
        video = args.video or folder / "in.mp4"
        if not args.video:
            write_video(video, frames(args.frames), 25)
        show(measure(args, video, folder))


if __name__ == "__main__":
    sys.exit(cli.run(bench))
