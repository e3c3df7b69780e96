"""Cost and accuracy of finding the faces of a video, for several intervals between searches of the whole frame.

    python -m scripts.bench.detect clips/                            # the default detector
    python -m scripts.bench.detect clips/ --every 1 8 16 --frames 100

There are no true faces, so a reference is made: every seventh frame is searched at four sizes, each as it is and
mirrored; a face is one that at least five of the eight searches find, and its points are their mean. Recall is the part
of these faces that is found, error the mean distance of the five points in percent of the face's size (the square root
of its box's area), as found and after the smoothing of eq. (10). Time is that of one thread.
"""  # fmt: skip

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from keep.config import arguments, cli
from keep.data.mux import TimedFrame, VideoSource
from keep.data.video_io import VIDEO_SUFFIXES
from keep.faces.detect import Detector, Face, default_detector
from keep.faces.follow import follow
from keep.faces.geometry import iou
from keep.inference.video.scan import scan
from keep.utils.clock import Clock
from keep.utils.errors import UserError

SIZES, STEP, VOTES, SAME = (0.8, 1.0, 1.35, 1.7), 7, 5, 0.4


@dataclass
class Score:
    """Faces of the reference, those found, others found; errors in percent; seconds and frames."""

    faces: int = 0
    hits: int = 0
    others: int = 0
    raw: list[float] = field(default_factory=list)
    smooth: list[float] = field(default_factory=list)
    seconds: float = 0.0
    frames: int = 0

    def row(self) -> str:
        numbers = [1000 * self.seconds / self.frames, 100 * self.hits / self.faces, self.others]
        errors = [np.mean(self.raw), np.quantile(self.raw, 0.95), np.mean(self.smooth)]
        return "".join(f"{n:>12.2f}" for n in (*numbers, *errors))


def reference(image: np.ndarray, detector: Detector) -> list[Face]:
    """The faces that most searches at several sizes and mirrored agree on."""
    groups: list[list[tuple[int, Face]]] = []
    views = [searched(image, detector, size, mirrored) for size in SIZES for mirrored in (False, True)]
    for number, faces in enumerate(views):
        for face in faces:
            own = [g for g in groups if iou(g[0][1].box, face.box) > SAME and number not in [n for n, _ in g]]
            if own:
                own[0].append((number, face))
            else:
                groups.append([(number, face)])
    return [
        Face(np.median([f.box for _, f in g], 0), np.mean([f.points for _, f in g], 0), len(g) / 8)
        for g in groups
        if len(g) >= VOTES
    ]


def searched(image: np.ndarray, detector: Detector, size: float, mirrored: bool) -> list[Face]:
    """The faces of the frame resized by ``size`` times the detector's own scale, and mirrored."""
    height, width = image.shape[:2]
    scale = size * detector.scale(image)
    w, h = round(width * scale), round(height * scale)
    view = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    rows = detector.rows(np.ascontiguousarray(view[:, ::-1] if mirrored else view))
    faces = []
    for row in rows:
        places = row[:14].reshape(7, 2).astype(np.float64)
        if mirrored:
            places[:, 0] = w - 1 - places[:, 0]
            places = places[[0, 1, 3, 2, 4, 6, 5]]
            places[[0, 1], 0] = places[[1, 0], 0]
        places *= (width / w, height / h)
        faces.append(Face(places[:2].ravel().astype(np.float32), places[2:].astype(np.float32), float(row[14])))
    return faces


def errors(found: list[Face], wanted: list[Face]) -> list[float | None]:
    """Error of each wanted face, in percent of its size; None where it is not found."""
    result: list[float | None] = []
    for face in wanted:
        best = max(found, key=lambda other: iou(other.box, face.box), default=None)
        if best is None or iou(best.box, face.box) <= SAME:
            result.append(None)
        else:
            result.append(100 * float(np.linalg.norm(best.points - face.points, axis=1).mean() / face.area**0.5))
    return result


def measure(images: list[np.ndarray], wanted: dict[int, list[Face]], detector: Any, every: int, score: Score) -> None:
    """Add one clip to ``score``."""
    start = time.thread_time()
    seen = list(follow(((i, image, False) for i, image in enumerate(images)), detector, every, Clock()))
    score.seconds += time.thread_time() - start
    score.frames += len(images)
    given = iter(seen)
    timed = (TimedFrame(i, image, i, 1) for i, image in enumerate(images))
    tracks = scan(timed, lambda _: next(given).faces, Clock(), min_face=0, min_frames=1, every=1).tracks
    for number, faces in wanted.items():
        one = errors(seen[number].faces, faces)
        score.faces += len(faces)
        score.hits += sum(e is not None for e in one)
        score.others += max(0, len(seen[number].faces) - len(faces))
        score.raw += [e for e in one if e is not None]
        for face in faces:
            smoothed = [
                t.points[list(t.frames).index(number)] for t in tracks if number in t.frames and t.points is not None
            ]
            distances = [np.linalg.norm(points - face.points, axis=1).mean() for points in smoothed]
            if distances:
                score.smooth.append(100 * float(min(distances)) / face.area**0.5)


def bench(argv: Sequence[str] | None = None) -> None:
    p = cli.Parser(prog="scripts.bench.detect", description="Cost and accuracy of finding the faces of a video.")
    p.add_argument("videos", type=Path, nargs="+", help="videos, or folders of videos")
    p.add_argument("--frames", type=arguments.count, default=150, help="frames of each video (150)")
    p.add_argument(
        "--every", type=arguments.count, nargs="+", default=[1, 8], help="intervals between full searches (1 8)"
    )
    args = p.parse_args(argv)
    cv2.setNumThreads(1)
    detector = default_detector()
    clips = [c for v in args.videos for c in (sorted(v.iterdir()) if v.is_dir() else [v])]
    clips = [c for c in clips if c.suffix.lower() in VIDEO_SUFFIXES]
    if not clips:
        raise UserError(f"{args.videos[0]}: contains no videos")
    scores = {every: Score() for every in args.every}
    for clip in clips:
        images = [frame.image for frame, _ in zip(VideoSource(clip), range(args.frames), strict=False)]
        wanted = {i: reference(images[i], detector) for i in range(STEP // 2, len(images), STEP)}
        for every, score in scores.items():
            measure(images, wanted, detector, every, score)
    print(f"{detector.name}, {len(clips)} clips, {next(iter(scores.values())).faces} faces in the reference")
    names = ("ms a frame", "recall %", "others", "error %", "95 %", "smoothed %")
    print(f"{'every':>6}" + "".join(f"{name:>12}" for name in names))
    for every, score in scores.items():
        print(f"{every:>6}{score.row()}")


if __name__ == "__main__":
    sys.exit(cli.run(bench))
