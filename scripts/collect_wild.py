"""Clips of one person each, aligned, from raw videos: as the test set of real faces was made (supplement A.4).

    python -m scripts.collect_wild raw_videos datasets/wild
    python -m scripts.collect_wild raw_videos datasets/mine --val 10 --min-face 256 --min-sharpness 60 --codec ffv1
    python -m scripts.collect_wild talk.mp4 out --detector YuNet=yunet.onnx --every 3 --identity Dlib

Each video is cut into shots; in each shot faces are found and joined into tracks; a track's landmarks are smoothed by
eq. (10), and it becomes clips of 100 to 300 frames, cropped to 512×512 on the FFHQ template. Writes

    OUT/clips/VIDEO/s000_p00_0.mp4   a clip (shot, person, piece), for the dataset VideoClips with root OUT/clips
    OUT/clips/VIDEO/s000_p00_0.npz   its frame numbers, points (as found, and smoothed), boxes, crop matrices
    OUT/val/VIDEO/…                  the same, of every Nth video that gives a clip, with --val N
    OUT/sources/VIDEO.json           the video, the options, its clips, and what was left out and why
    OUT/sheets/VIDEO.png             frames of its clips, and their landmarks before and after smoothing
    OUT/manifest.json                all clips, with the folder each is in: clips, val, or none any more; the options
    OUT/report.json                  all that was left out, counted by reason

A video's folder appears when it is finished: run again after an interruption, only what is missing is done. What
OUT/sources lists is done, even if its clips were moved or removed since. The exit status is 1 if a video could not be
read, or if there is no clip at all.
"""  # fmt: skip

import argparse
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np
from tqdm import tqdm

from keep.cli import run
from keep.config import import_registered
from keep.data.video_io import VIDEO_SUFFIXES, VideoInfo, iter_video, probe, read_video, write_video
from keep.errors import UserError
from keep.faces.align import TEMPLATE_512, crop, invert, scale_of, similarity, transform
from keep.faces.detect import Detector, Face, default_detector
from keep.faces.shots import ShotDetector
from keep.faces.smooth import fill_gaps, smooth
from keep.faces.track import Track, Tracker, interpolated
from keep.registry import DETECTORS, IDENTITIES
from keep.visual import PALETTE, console_table, write_figure
from scripts.arguments import Parser, check_output, network

LOOK_EVERY = 25  # frames between two looks at a clip's sharpness and identity
CHUNK_BYTES = 1 << 28  # of decoded frames held at once
SAME = {"cosine": 0.3, "l2": 0.6}  # one person's views: at least this similar, or at most this far apart
ADVICE = {
    "no face": ("", max, "no face was found in {n}: try another --detector, or a larger --longest-side"),
    "too short": ("length", max, "the longest of {n} stretches has {best} frames: lower --min-length ({min_length})"),
    "face too small": ("face_px", max, "the largest of {n} faces has {best} px: lower --min-face ({min_face:g})"),
    "face too uncertain": ("score", max, "the best of {n} scores is {best}: lower --min-score ({min_score:g})"),
    "too far beyond the frame": (
        "outside", min, "of {n} crops the least lies {best} beyond the frame: raise --max-outside ({max_outside:g})"
    ),
    "too blurred": (
        "sharpness", max, "the sharpest of {n} clips has {best}: lower --min-sharpness ({min_sharpness:g})"
    ),
}  # fmt: skip
"""Reason → (what of a reject tells how near it was, which of them was nearest, what to say if nothing was kept)."""


@dataclass
class Source:
    """One video: what came of it.

    Attributes:
        path: of the video.
        name: of its folder below OUT/clips.
        clips: what was kept, one dict a clip.
        rejects: what was not, one dict each: step, reason, and where.
        problem: why the video could not be read, or None.
    """

    path: Path
    name: str
    clips: list[dict[str, Any]] = field(default_factory=list)
    rejects: list[dict[str, Any]] = field(default_factory=list)
    problem: str | None = None
    shots: int = 0
    tracks: int = 0
    frames: int = 0

    def reject(self, step: str, reason: str, **where: Any) -> None:
        self.rejects.append({"step": step, "reason": reason, **where})


def collect(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    import_registered()
    paths = find(args.raw)
    detector = network(DETECTORS, args.detector) if args.detector else default_detector()
    identity = network(IDENTITIES, args.identity) if args.identity else None
    for part in (detector, identity):
        if part is not None:
            part.to(args.device)
    new_shots = shot_finder(args.shots)
    settings = {
        **{k: v for k, v in vars(args).items() if k not in ("raw", "out", "val", "device")},
        "detector": detector.name,
        "identity": identity and identity.name,
    }
    sources: list[Source] = []
    expected = {path: told_frames(path) for path in paths}
    with tqdm(total=sum(expected.values()), desc="collecting", unit=" frames", delay=2) as bar:
        done = 0
        for number, path in enumerate(paths, 1):
            name = flat_name(path, args.raw)
            # A refresh would not wait for the delay.
            bar.set_postfix_str(f"video {number} of {len(paths)}: {name[-30:]}", refresh=False)
            kept = sum(bool(s.clips) for s in sources)
            place = "val" if args.val and kept % args.val == args.val - 1 else "clips"
            source = Source(path, name)
            sources.append(one_source(source, place, args, settings, detector, identity, new_shots, bar))
            # What the file told of its length may be wrong; a video that is not looked at again counts as a whole.
            done += sources[-1].frames
            bar.total += sources[-1].frames - expected[path]
            bar.update(done - bar.n)
    print(report(sources, args.out, settings))
    if not any(source.clips for source in sources):
        print(f"error: no clip was kept: {why_none(sources, args)}", file=sys.stderr)
        return 1
    return 1 if any(source.problem for source in sources) else 0


def told_frames(path: Path) -> int:
    """How many frames a video says it has, at no cost; 0 if it says nothing. For the progress bar."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            seconds = container.duration / av.time_base if container.duration else 0
            return stream.frames or round(seconds * (stream.average_rate or 0))
    except (av.error.FFmpegError, IndexError, OSError):
        return 0


def why_none(sources: list[Source], args: argparse.Namespace) -> str:
    """What was nearest to becoming a clip, for every reason, and which option would let it in."""
    rejects = [reject for source in sources for reject in source.rejects]
    told = []
    for reason, times in Counter(r["reason"] for r in rejects).most_common():
        if reason in ADVICE:
            key, nearest, line = ADVICE[reason]
            best = nearest(r[key] for r in rejects if r["reason"] == reason) if key else None
            n = f"{times} video{'s' * (times > 1)}" if reason == "no face" else times
            told.append(line.format(n=n, best=best, **vars(args)))
        else:
            told.append(f"{times} {reason}")
    unreadable = sum(bool(source.problem) for source in sources)
    return "; ".join(told + [f"{unreadable} of {len(sources)} videos cannot be read"] * bool(unreadable))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = Parser(prog="scripts.collect_wild", description="aligned one-person clips from raw videos")
    p.add_argument("raw", type=Path, help="a video, or a folder that is searched with all below it")
    p.add_argument("out", type=Path, help="folder to write")
    p.add_argument(
        "--val", type=int, default=0, metavar="N",
        help="clips of every Nth video that gives any go to OUT/val (0: none)",
    )  # fmt: skip
    p.add_argument("--detector", metavar="NAME[=FILE]", help="face detector; default: the best that is at hand")
    p.add_argument("--identity", metavar="NAME[=FILE]", help="identity network that checks each clip is one person")
    p.add_argument(
        "--shots", choices=("both", "scenedetect", "builtin"), default="both",
        help="what finds cuts: PySceneDetect, the detector of keep.faces.shots, or either (default)",
    )  # fmt: skip
    p.add_argument("--every", type=int, default=1, metavar="N", help="look for faces in every Nth frame (default 1)")
    p.add_argument("--longest-side", type=int, metavar="PX", help="shrink frames to this before detection")
    p.add_argument("--min-length", type=int, default=100, metavar="FRAMES", help="of a clip (default 100)")
    p.add_argument("--max-length", type=int, default=300, metavar="FRAMES", help="of a clip (default 300)")
    p.add_argument("--max-clips", type=int, default=0, metavar="N", help="of one track; 0 is no limit (default)")
    p.add_argument("--gap", type=int, default=10, metavar="FRAMES", help="longest loss of a face that is bridged")
    p.add_argument("--min-face", type=float, default=64, metavar="PX", help="shorter side of its box (default 64)")
    p.add_argument("--min-score", type=float, default=0, help="median of the detector's scores (default 0)")
    p.add_argument(
        "--min-sharpness", type=float, default=0, metavar="V",
        help="variance of the Laplacian of the face at 256×256; about 60 and more is sharp (default 0)",
    )  # fmt: skip
    p.add_argument("--max-outside", type=float, default=0.5, metavar="SHARE", help="of a crop, beyond the frame (0.5)")
    p.add_argument("--sigma", type=float, default=5, help="of the smoothing over time, in frames (default 5)")
    p.add_argument("--size", type=int, default=512, metavar="PX", help="side of the crops (default 512)")
    p.add_argument("--codec", choices=("libx264", "ffv1"), default="libx264", help="ffv1 is lossless (default libx264)")
    p.add_argument("--crf", type=int, default=10, help="of libx264 (default 10)")
    p.add_argument("--device", default="cpu", help="of the networks (default cpu)")
    args = p.parse_args(argv)
    for name in ("every", "min_length", "size"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1")
    if args.val < 0 or args.val == 1:
        raise UserError("--val must be at least 2, or 0 for none: with 1 nothing would be left for training")
    if args.raw.is_dir() and args.out.resolve().is_relative_to(args.raw.resolve()):
        raise UserError(
            f"{args.out} lies in {args.raw}: the clips would be taken for raw videos; choose another folder"
        )
    check_output(args.out)
    if args.max_length < args.min_length:
        raise UserError(f"--max-length {args.max_length} is less than --min-length {args.min_length}")
    return args


def find(raw: Path) -> list[Path]:
    """The videos below ``raw``."""
    if raw.is_file():
        return [raw]
    if not raw.is_dir():
        raise UserError(f"{raw}: no such file or folder")
    paths = sorted(p for p in raw.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and not p.name.startswith("."))
    if not paths:
        raise UserError(f"{raw}: holds no video ({', '.join(sorted(VIDEO_SUFFIXES))})")
    name, times = Counter(flat_name(p, raw) for p in paths).most_common(1)[0]
    if times > 1:
        raise UserError(f"{times} videos are named {name}: results are kept by that name; rename one")
    return paths


def flat_name(path: Path, raw: Path) -> str:
    """The path below ``raw`` without suffix, in one word."""
    return path.stem if path == raw else "__".join(path.relative_to(raw).with_suffix("").parts)


def one_source(
    source: Source,
    place: str,
    args: argparse.Namespace,
    settings: dict[str, Any],
    detector: Any,
    identity: Any,
    new_shots: Any,
    bar: Any,
) -> Source:
    """Collect from one video, or read what an earlier run collected with the same options.

    Its clips go to the folder ``place``; those made anew with other options, to where the old ones are.
    """
    record = args.out / "sources" / f"{source.name}.json"
    stat = source.path.stat()
    made_with = {"bytes": stat.st_size, "modified": stat.st_mtime_ns, **settings}
    if record.is_file():
        known = json.loads(record.read_text(encoding="utf-8"))
        if known["made_with"] == made_with:
            keys = ("clips", "rejects", "problem", "shots", "tracks", "frames")
            return Source(source.path, source.name, **{k: known[k] for k in keys})
    unfinished = args.out / "clips" / f".{source.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        info = probe(source.path)
        tracks = tracks_of(source, info, args, detector, new_shots, bar)
        for track in tracks:
            for number, piece in enumerate(pieces(source, track, info, args)):
                piece.write(unfinished, number, source, info, args, identity)
        if source.clips:
            sheet(source, unfinished, args)
    except UserError as error:
        source.problem = str(error)
        source.clips.clear()
        shutil.rmtree(unfinished)
        return source  # not recorded: the next run looks at it again
    old = [args.out / p / source.name for p in ("val", "clips") if (args.out / p / source.name).is_dir()]
    folder = old[0] if old else args.out / place / source.name
    for path in old:
        shutil.rmtree(path)
    if source.clips:
        folder.parent.mkdir(exist_ok=True)
        unfinished.replace(folder)
    else:
        unfinished.rmdir()
    write_json(
        record,
        {
            "source": str(source.path), "frames": source.frames, "shots": source.shots, "tracks": source.tracks,
            "clips": source.clips, "rejects": source.rejects, "problem": None, "made_with": made_with,
        },
    )  # fmt: skip
    return source


# --- shots and tracks -----------------------------------------------------------------------------------------


def shot_finder(which: str) -> Callable[[VideoInfo], "ShotFinder"]:
    if which == "builtin":
        return lambda info: ShotFinder(info, scenedetect=False, builtin=True)
    try:
        import scenedetect  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"PySceneDetect cannot be imported ({error}): pip install keep-vfsr[collect], or use --shots builtin"
        ) from error
    return lambda info: ShotFinder(info, scenedetect=True, builtin=which == "both")


class ShotFinder:
    """Cuts by PySceneDetect (content and adaptive detector) and by our own, in one pass.

    A cut that is missed spoils a clip, one too many merely shortens it: so any detector's word is taken.
    """

    def __init__(self, info: VideoInfo, scenedetect: bool, builtin: bool) -> None:
        self.fps, self.cuts, self.last = float(info.fps), set(), -1
        self.own = ShotDetector() if builtin else None
        self.others: list[Any] = []
        if scenedetect:
            from scenedetect import FrameTimecode
            from scenedetect.detectors import AdaptiveDetector, ContentDetector

            self.others = [ContentDetector(min_scene_len=1), AdaptiveDetector(min_scene_len=1)]
            self.timecode = FrameTimecode

    def update(self, t: int, frame: np.ndarray) -> None:
        self.last = t
        if self.own and self.own.update(frame):
            self.cuts.add(t)
        if self.others:
            height = max(1, round(256 * frame.shape[0] / frame.shape[1]))
            small = np.ascontiguousarray(cv2.resize(frame, (256, height), interpolation=cv2.INTER_AREA)[..., ::-1])
            now = self.timecode(t, self.fps)
            self.cuts.update(cut.frame_num for other in self.others for cut in other.process_frame(now, small))

    def finish(self) -> list[int]:
        """First frames of new shots, in order."""
        if self.others and self.last >= 0:
            end = self.timecode(self.last, self.fps)
            self.cuts.update(cut.frame_num for other in self.others for cut in other.post_process(end))
        return sorted(self.cuts - {0})


def tracks_of(
    source: Source, info: VideoInfo, args: argparse.Namespace, detector: Detector, new_shots: Any, bar: Any
) -> list[Track]:
    """One pass over the video: its cuts, and its faces joined into tracks. The bar gets a step a frame."""
    if args.longest_side:
        detector.longest_side = min(args.longest_side, detector.longest_side or args.longest_side)
    shots, found = new_shots(info), []
    for t, frame in enumerate(iter_video(source.path)):
        bar.update()
        shots.update(t, frame)
        found.append(detector(frame) if t % args.every == 0 else None)
    cuts = set(shots.finish())
    source.frames, source.shots = len(found), len(cuts) + 1
    tracks = joined(found, cuts, args)
    source.tracks = len(tracks)
    if not tracks:
        source.reject("detection", "no face", frames=[0, len(found)])
    return tracks


def joined(found: list[list[Face] | None], cuts: set[int], args: argparse.Namespace) -> list[Track]:
    tracker = Tracker(patience=max(args.gap, args.every) + 1)
    for t, faces in enumerate(found):
        if t in cuts:
            tracker.cut()
        if faces is not None:
            tracker.update(t, faces)
    return interpolated(tracker.finish(), args.every)


# --- clips ----------------------------------------------------------------------------------------------------


@dataclass
class Piece:
    """A part of a track that may become a clip.

    Attributes:
        track: the whole.
        frames: int64 (n,), every frame from first to last.
        found: float32 (n, 5, 2), points as they were found, gaps filled.
        points: float32 (n, 5, 2), smoothed over the whole track.
        boxes: float32 (n, 4).
    """

    track: Track
    frames: np.ndarray
    found: np.ndarray
    points: np.ndarray
    boxes: np.ndarray

    def write(
        self, folder: Path, number: int, source: Source, info: VideoInfo, args: argparse.Namespace, identity: Any
    ) -> None:
        """Write the clip and its landmarks into ``folder``; take it back if it is blurred or of two people."""
        stem = f"s{self.track.shot:03d}_p{self.track.id:02d}_{number}"
        clip, arrays = folder / f"{stem}{'.mkv' if args.codec == 'ffv1' else '.mp4'}", folder / f"{stem}.npz"
        matrices = np.stack([similarity(p, args.size) for p in self.points])
        looks = Looks(identity)

        def crops() -> Iterator[np.ndarray]:
            frames = frames_between(source.path, info, int(self.frames[0]), len(self.frames))
            for n, frame in enumerate(tqdm(frames, total=len(self.frames), desc=stem, delay=2, leave=False)):
                image = crop(frame, matrices[n], args.size)
                if n % LOOK_EVERY == 0:
                    looks.add(frame, image, self.points[n])
                yield image

        write_video(clip, crops(), info.fps, args.codec, args.crf)
        where = {"shot": self.track.shot, "person": self.track.id, "frames": _range(self.frames)}
        reason = looks.reason(args.min_sharpness)
        if reason:
            clip.unlink()
            source.reject("clip", reason, **where, sharpness=round(looks.sharpness(), 1))
            return
        with arrays.open("wb") as file:
            np.savez_compressed(
                file, frames=self.frames, points=self.points, points_found=self.found, boxes=self.boxes,
                matrices=matrices.astype(np.float32),
            )  # fmt: skip
        low, high = self.boxes[:, :2].min(0), self.boxes[:, 2:].max(0)
        source.clips.append(
            {
                "clip": f"{source.name}/{clip.name}", "landmarks": f"{source.name}/{arrays.name}", **where,
                "length": len(self.frames), "fps": str(info.fps), "face_px": round(float(np.median(sides(self.boxes)))),
                "score": round(float(np.median(self.track.scores)), 2), "sharpness": round(looks.sharpness(), 1),
                "track_box": [round(float(v)) for v in (*low, *high)],
                "scale": round(float(np.median([scale_of(m) for m in matrices])), 3),
            }
        )  # fmt: skip


def pieces(source: Source, track: Track, info: VideoInfo, args: argparse.Namespace) -> list[Piece]:
    """The parts of a track that are long and large enough; the others are named among the rejects."""
    frames, found, boxes = track.timeline()
    found, boxes = fill_gaps(found, args.gap), fill_gaps(boxes, args.gap)
    points = smooth(found, args.sigma, round(4 * args.sigma))
    kept: list[Piece] = []
    for run_ in _runs(np.isfinite(found[:, 0, 0])):
        where = {"shot": track.shot, "person": track.id, "frames": _range(frames[run_])}
        face = float(np.median(sides(boxes[run_])))
        outside = float(np.quantile([outside_share(p, info, args.size) for p in points[run_]], 0.9))
        if len(run_) < args.min_length:
            source.reject("track", "too short", **where, length=len(run_))
        elif face < args.min_face:
            source.reject("track", "face too small", **where, face_px=round(face))
        elif np.median(track.scores) < args.min_score:
            source.reject("track", "face too uncertain", **where, score=round(float(np.median(track.scores)), 2))
        elif outside > args.max_outside:
            source.reject("track", "too far beyond the frame", **where, outside=round(outside, 2))
        else:
            parts = split(run_, args.min_length, args.max_length)
            most = args.max_clips or len(parts)
            kept += [Piece(track, frames[p], found[p], points[p], boxes[p]) for p in parts[:most]]
            for part in parts[most:]:
                source.reject("track", "beyond --max-clips", **{**where, "frames": _range(frames[part])})
    return kept


def split(run_: np.ndarray, low: int, high: int) -> list[np.ndarray]:
    """Consecutive parts of nearly equal length, of ``low`` to ``high`` frames each, as few as possible left over."""
    count = max(1, min(-(-len(run_) // high), len(run_) // low))
    return [part[:high] for part in np.array_split(run_, count)]


class Looks:
    """What a few frames of a clip tell: how sharp it is, and whether it is one person throughout."""

    def __init__(self, identity: Any | None) -> None:
        self.identity = identity
        self._sharp: list[float] = []
        self._who: list[np.ndarray] = []

    def add(self, frame: np.ndarray, image: np.ndarray, points: np.ndarray) -> None:
        how = cv2.INTER_AREA if image.shape[0] > 256 else cv2.INTER_CUBIC
        grey = cv2.cvtColor(cv2.resize(image, (256, 256), interpolation=how), cv2.COLOR_RGB2GRAY)
        self._sharp.append(float(cv2.Laplacian(grey, cv2.CV_64F)[48:-32, 48:-48].var()))
        if self.identity is not None:
            self._who.append(self.identity(frame[None], points[None])[0])

    def sharpness(self) -> float:
        return float(np.median(self._sharp))

    def reason(self, min_sharpness: float) -> str | None:
        """Why the clip is not to be kept."""
        if self.sharpness() < min_sharpness:
            return "too blurred"
        if self.identity is not None and not one_person(np.stack(self._who), self.identity.measure):
            return "more than one person"
        return None


def one_person(who: np.ndarray, measure: str) -> bool:
    """Whether every vector (n, D) is near the median of all: one odd view (a hand before the face) is forgiven."""
    middle = np.median(who, axis=0)
    if measure == "cosine":
        near = who @ middle / np.linalg.norm(middle) >= SAME[measure]
    else:
        near = np.linalg.norm(who - middle, axis=1) <= SAME[measure]
    return int((~near).sum()) <= 1


def frames_between(path: Path, info: VideoInfo, start: int, count: int) -> Iterator[np.ndarray]:
    """``count`` frames from ``start``, read in chunks of bounded size."""
    step = max(16, CHUNK_BYTES // (info.height * info.width * 3))
    for first in range(start, start + count, step):
        yield from read_video(path, first, min(step, start + count - first))


def outside_share(points: np.ndarray, info: VideoInfo, size: int) -> float:
    """The share of a crop that lies beyond the frame."""
    side = np.linspace(0, size - 1, 9)
    grid = np.stack(np.meshgrid(side, side), -1)
    x, y = np.moveaxis(transform(invert(similarity(points, size)), grid), -1, 0)
    return float(((x < 0) | (y < 0) | (x > info.width - 1) | (y > info.height - 1)).mean())


def sides(boxes: np.ndarray) -> np.ndarray:
    """The shorter side of each box."""
    return (boxes[:, 2:] - boxes[:, :2]).min(axis=1)


def _runs(known: np.ndarray) -> list[np.ndarray]:
    """Index arrays of the unbroken stretches of True."""
    at = np.flatnonzero(known)
    return np.split(at, np.flatnonzero(np.diff(at) > 1) + 1) if len(at) else []


def _range(frames: np.ndarray) -> list[int]:
    """[first, one past the last]."""
    return [int(frames[0]), int(frames[-1]) + 1]


# --- what is shown and counted --------------------------------------------------------------------------------


def sheet(source: Source, folder: Path, args: argparse.Namespace) -> None:
    """A row a clip: six of its frames with the smoothed points, and the nose's way before and after smoothing."""
    clips = source.clips[:24]

    def draw(figure: Any) -> None:
        grid = figure.add_gridspec(len(clips), 8)
        for row, clip in enumerate(clips):
            path = folder / Path(clip["clip"]).name
            with np.load(folder / Path(clip["landmarks"]).name) as arrays:
                data = dict(arrays)
            for column, n in enumerate(np.linspace(0, len(data["frames"]) - 1, 6).round().astype(int)):
                axes = figure.add_subplot(grid[row, column])
                axes.imshow(cv2.resize(read_video(path, int(n), 1)[0], (192, 192), interpolation=cv2.INTER_AREA))
                points = transform(data["matrices"][n], data["points_found"][n]) * 192 / args.size
                axes.plot(*points.T, ".", color=PALETTE[1], markersize=3)
                axes.plot(*(TEMPLATE_512 * 192 / 512).T, "+", color=PALETTE[5], markersize=4)
                axes.set(xticks=[], yticks=[], title=f"frame {data['frames'][n]}")
                if column == 0:
                    axes.set_ylabel(f"{path.stem}\nface {clip['face_px']} px\nsharp {clip['sharpness']:.0f}", size=7)
            axes = figure.add_subplot(grid[row, 6:])
            for which, colour, width in (("points_found", PALETTE[1], 0.7), ("points", PALETTE[0], 1.4)):
                way = data[which][:, 2] - data["points_found"][:, 2].mean(0)
                label = "as found" if which == "points_found" else "smoothed"
                axes.plot(data["frames"], way[:, 0], color=colour, linewidth=width, label=label)
                axes.plot(data["frames"], way[:, 1], color=colour, linewidth=width, linestyle=":")
            axes.tick_params(labelsize=7)
            if row == 0:
                axes.legend(fontsize=7)
                axes.set_title("nose: x (line), y (dots), px")

    write_figure(args.out / "sheets" / f"{source.name}.png", draw, size=(14, 1.9 * len(clips) + 0.4))


def report(sources: list[Source], out: Path, settings: dict[str, Any]) -> str:
    """Write manifest.json and report.json; the summary as text."""
    reasons = Counter(r["reason"] for s in sources for r in s.rejects)
    problems = {str(s.path): s.problem for s in sources if s.problem}
    clips = [
        {"folder": place_of(c["clip"], out), "source": str(s.path), "detector": settings["detector"], **c}
        for s in sources
        for c in s.clips
    ]
    totals = {
        "videos": len(sources), "unreadable": len(problems), "frames": sum(s.frames for s in sources),
        "shots": sum(s.shots for s in sources), "tracks": sum(s.tracks for s in sources), "clips": len(clips),
        "clip_frames": sum(c["length"] for c in clips),
    }  # fmt: skip
    rejects = [{"source": str(s.path), **r} for s in sources for r in s.rejects]
    write_json(out / "manifest.json", {"settings": settings, "clips": clips})
    write_json(out / "report.json", {"totals": totals, "reasons": reasons, "unreadable": problems, "rejects": rejects})
    rows = [
        {
            "video": s.name, "frames": s.frames, "shots": s.shots, "tracks": s.tracks, "clips": len(s.clips),
            "left out": "unreadable" if s.problem else _counted(Counter(r["reason"] for r in s.rejects)),
        }
        for s in sources
    ]  # fmt: skip
    lines = [console_table(rows, ["video", "frames", "shots", "tracks", "clips", "left out"])]
    lines += [f"{path}: {problem}" if path not in problem else problem for path, problem in problems.items()]
    in_val = sum(clip["folder"] == "val" for clip in clips)
    gone = [clip for clip in clips if clip["folder"] is None]
    if gone:
        lines.append(
            f"{len(gone)} clips are no longer in {out / 'clips'} or {out / 'val'}, and were not made again; "
            f"to have them made, remove their videos' files in {out / 'sources'}"
        )
    lines.append(
        f"{out}: {totals['clips']} clips ({in_val} in val), {totals['clip_frames']} frames, of "
        f"{totals['tracks']} tracks in {totals['shots']} shots of {totals['videos']} videos; "
        f"left out: {_counted(reasons) or 'nothing'}" + (f"; {len(problems)} unreadable" if problems else "")
    )
    return "\n".join(lines)


def place_of(clip: str, out: Path) -> str | None:
    """Where a clip is now: ``clips`` or ``val``; None if it was taken away."""
    return next((place for place in ("clips", "val") if (out / place / clip).is_file()), None)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    temporary.replace(path)


def _counted(reasons: Counter[str]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())


if __name__ == "__main__":
    sys.exit(run(collect))
