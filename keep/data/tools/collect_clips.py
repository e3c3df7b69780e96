"""From a track to its clips: parts that are long, large and sharp enough and show one person."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keep.data.timeline import VideoInfo
from keep.data.tools.collect_quality import SAMPLE_EVERY, ClipQuality
from keep.data.tools.collect_source import Source
from keep.data.video_io import read_video, write_video
from keep.faces.align import crop, invert, scale_of, similarity, transform
from keep.faces.smooth import fill_gaps, smooth
from keep.faces.track import Track
from keep.utils.progress import progress_bar

CHUNK_BYTES = 1 << 28
"""Decoded frames that are in memory at once."""


@dataclass
class Piece:
    """A part of a track that may become a clip.

    Attributes:
        track: the track.
        frames: int64 (n,), every frame number from first to last.
        found: float32 (n, 5, 2), detected points, gaps filled.
        points: float32 (n, 5, 2), points smoothed over the complete track.
        boxes: float32 (n, 4).
    """

    track: Track
    frames: np.ndarray
    found: np.ndarray
    points: np.ndarray
    boxes: np.ndarray

    def position(self) -> dict[str, Any]:
        """Shot, person and frames, as records hold them."""
        return {"shot": self.track.shot, "person": self.track.id, "frames": frame_range(self.frames)}


def write_clip(
    piece: Piece, number: int, folder: Path, source: Source, info: VideoInfo, args: argparse.Namespace, identity: Any
) -> None:
    """Write a clip and its landmarks into ``folder`` and add it to the source's clips.

    A clip that is blurred or shows two people is removed and added to the source's rejects.
    """
    stem = f"s{piece.track.shot:03d}_p{piece.track.id:02d}_{number}"
    clip, arrays = folder / f"{stem}{'.mkv' if args.codec == 'ffv1' else '.mp4'}", folder / f"{stem}.npz"
    matrices = np.stack([similarity(p, args.size) for p in piece.points])
    quality = ClipQuality(identity)

    def crops() -> Iterator[np.ndarray]:
        frames = frames_between(source.path, info, int(piece.frames[0]), len(piece.frames))
        for n, frame in enumerate(progress_bar(frames, total=len(piece.frames), desc=stem, delay=2, leave=False)):
            aligned = crop(frame, matrices[n], args.size)
            if n % SAMPLE_EVERY == 0:
                quality.add(frame, aligned, piece.points[n])
            yield aligned

    write_video(clip, crops(), info.fps, args.codec, args.crf)
    fault = quality.fault(args.min_sharpness)
    if fault:
        clip.unlink()
        source.reject("clip", fault, **piece.position(), sharpness=round(quality.sharpness(), 1))
        return
    with arrays.open("wb") as file:
        np.savez_compressed(
            file, frames=piece.frames, points=piece.points, points_found=piece.found, boxes=piece.boxes,
            matrices=matrices.astype(np.float32),
        )  # fmt: skip
    names = {"clip": f"{source.name}/{clip.name}", "landmarks": f"{source.name}/{arrays.name}"}
    source.clips.append({**names, **describe_clip(piece, matrices, info, quality)})


def describe_clip(piece: Piece, matrices: np.ndarray, info: VideoInfo, quality: ClipQuality) -> dict[str, Any]:
    """What manifest.json holds of a clip."""
    low, high = piece.boxes[:, :2].min(0), piece.boxes[:, 2:].max(0)
    return {
        **piece.position(),
        "length": len(piece.frames),
        "fps": str(info.fps),
        "face_px": round(float(np.median(shorter_sides(piece.boxes)))),
        "score": round(float(np.median(piece.track.scores)), 2),
        "sharpness": round(quality.sharpness(), 1),
        "track_box": [round(float(v)) for v in (*low, *high)],
        "scale": round(float(np.median([scale_of(m) for m in matrices])), 3),
    }


def cut_track(source: Source, track: Track, info: VideoInfo, args: argparse.Namespace) -> list[Piece]:
    """The parts of a track that are long and large enough; the others are added to the source's rejects."""
    frames, found, boxes = track.timeline()
    found, boxes = fill_gaps(found, args.gap), fill_gaps(boxes, args.gap)
    points = smooth(found, args.sigma, round(4 * args.sigma))
    kept: list[Piece] = []
    for stretch in unbroken(np.isfinite(found[:, 0, 0])):
        position = {"shot": track.shot, "person": track.id, "frames": frame_range(frames[stretch])}
        face = float(np.median(shorter_sides(boxes[stretch])))
        outside = float(np.quantile([outside_share(p, info, args.size) for p in points[stretch]], 0.9))
        if len(stretch) < args.min_length:
            source.reject("track", "too short", **position, length=len(stretch))
        elif face < args.min_face:
            source.reject("track", "face too small", **position, face_px=round(face))
        elif np.median(track.scores) < args.min_score:
            source.reject("track", "face too uncertain", **position, score=round(float(np.median(track.scores)), 2))
        elif outside > args.max_outside:
            source.reject("track", "too far beyond the frame", **position, outside=round(outside, 2))
        else:
            parts = split_evenly(stretch, args.min_length, args.max_length)
            limit = args.max_clips or len(parts)
            kept += [Piece(track, frames[p], found[p], points[p], boxes[p]) for p in parts[:limit]]
            for part in parts[limit:]:
                source.reject("track", "beyond --max-clips", **{**position, "frames": frame_range(frames[part])})
    return kept


def split_evenly(indices: np.ndarray, shortest: int, longest: int) -> list[np.ndarray]:
    """Consecutive parts of nearly equal length, ``shortest`` to ``longest`` each, with as few left over as possible."""
    count = max(1, min(-(-len(indices) // longest), len(indices) // shortest))
    return [part[:longest] for part in np.array_split(indices, count)]


def frames_between(path: Path, info: VideoInfo, start: int, count: int) -> Iterator[np.ndarray]:
    """``count`` frames from ``start``, read in chunks of limited size."""
    step = max(16, CHUNK_BYTES // (info.height * info.width * 3))
    for first in range(start, start + count, step):
        yield from read_video(path, first, min(step, start + count - first))


def outside_share(points: np.ndarray, info: VideoInfo, size: int) -> float:
    """The share of a crop that is outside the frame."""
    side = np.linspace(0, size - 1, 9)
    grid = np.stack(np.meshgrid(side, side), -1)
    x, y = np.moveaxis(transform(invert(similarity(points, size)), grid), -1, 0)
    return float(((x < 0) | (y < 0) | (x > info.width - 1) | (y > info.height - 1)).mean())


def shorter_sides(boxes: np.ndarray) -> np.ndarray:
    """The shorter side of each box (n, 4)."""
    return (boxes[:, 2:] - boxes[:, :2]).min(axis=1)


def unbroken(known: np.ndarray) -> list[np.ndarray]:
    """Index arrays of the unbroken stretches of True."""
    at = np.flatnonzero(known)
    return np.split(at, np.flatnonzero(np.diff(at) > 1) + 1) if len(at) else []


def frame_range(frames: np.ndarray) -> list[int]:
    """[first, one past the last]."""
    return [int(frames[0]), int(frames[-1]) + 1]
