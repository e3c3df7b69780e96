"""From a track to its clips: those that are long, large, sharp and one person's."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from keep.data.tools.wild.looks import LOOK_EVERY, Looks
from keep.data.tools.wild.source import Source
from keep.data.video_io import VideoInfo, read_video, write_video
from keep.faces.align import crop, invert, scale_of, similarity, transform
from keep.faces.smooth import fill_gaps, smooth
from keep.faces.track import Track

CHUNK_BYTES = 1 << 28  # of decoded frames held at once


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
