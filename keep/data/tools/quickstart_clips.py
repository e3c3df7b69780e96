"""The clips of ``keep-data quickstart``: aligned faces of a folder of videos, with a record of each video."""

import argparse
import json
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from keep.config.cli import network
from keep.config.registry import DETECTORS
from keep.data.tools.align import align_video
from keep.data.tools.collect import find_videos, flat_name
from keep.data.video_io import iter_video, probe, read_video
from keep.faces.align import similarity, transform
from keep.faces.detect import default_detector
from keep.utils.errors import UserError
from keep.utils.io import AtomicWrite, write_file

CRF = 10
"""H.264 quality of the aligned clips."""
LOOKED_AT = 3
"""Frames of a square video that tell whether its face is aligned."""
NEAR = 0.12
"""A face counts as aligned if aligning it moves no corner of the frame further than this share of its side. Measured
with CenterFace: 0.026 to 0.114 on twelve aligned clips; 0.133 and more on nine square clips that are not."""


class Record:
    """``OUT/quickstart.json``: the settings, and for each video its size and time, its clips or its problem.

    Args:
        args: the command line.

    Raises:
        UserError: the folder holds something else, or was begun with other settings.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.folder: Path = args.folder
        self.path: Path = args.out / "quickstart.json"
        keys = ("size", "aligned", "detector", "max_frames", "min_frames", "largest")
        self.settings = {k: getattr(args, k) for k in keys}
        self.videos: dict[str, dict[str, Any]] = {}
        if self.path.is_file():
            settings, videos = stored_record(self.path)
            changed = [f"--{k.replace('_', '-')}" for k in keys if settings.get(k) != self.settings[k]]
            if changed:
                raise UserError(
                    f"{args.out}: was begun with another {' and '.join(changed)}; remove it, or name another folder"
                )
            self.videos = videos
        elif args.out.is_dir() and any(args.out.iterdir()):
            raise UserError(f"{args.out}: holds other files; name a new folder with -o")

    def save(self, **more: Any) -> None:
        content = {"settings": self.settings, "videos": self.videos, **more}
        write_file(self.path, json.dumps(content, indent=1, ensure_ascii=False))

    def finish(self, parts: dict[str, list[str]]) -> None:
        """Save who is in which part."""
        self.save(parts=parts)

    def problems(self) -> list[str]:
        return [video["problem"] for video in self.videos.values() if video["problem"]]


def stored_record(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The settings and the videos of an earlier ``quickstart.json``.

    Raises:
        UserError: the file is something else.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        settings, videos = stored["settings"], stored["videos"]
    except (ValueError, KeyError, TypeError):
        settings = videos = None
    if not isinstance(settings, dict) or not isinstance(videos, dict):
        raise UserError(f"{path.parent}: holds other files; name a new folder with -o")
    return settings, videos


def align_videos(record: Record, args: argparse.Namespace) -> None:
    """Align every video that the record does not hold yet; it is saved after each.

    Raises:
        UserError: no videos, or no face detector is available.
    """
    paths = {flat_name(path, args.folder): path for path in find_videos(args.folder)}
    states = {name: [path.stat().st_size, path.stat().st_mtime_ns] for name, path in paths.items()}
    record.videos = {n: v for n, v in record.videos.items() if n in states and v["state"] == states[n]}
    pending = [name for name in paths if name not in record.videos]
    detector = load_detector(args) if pending and not args.aligned else None
    for name in tqdm(pending, desc="aligning faces", unit=" videos", delay=2):
        clips, problem = [], None
        try:
            target = args.out / "clips" / f"{name}{paths[name].suffix}"
            clips = [path.stem for path in align_one(paths[name], target, detector, args)]
        except UserError as error:
            problem = str(error)
        person = paths[name].relative_to(args.folder).with_suffix("").parts[0]
        record.videos[name] = {"state": states[name], "person": person, "clips": clips, "problem": problem}
        record.save()


def load_detector(args: argparse.Namespace) -> Any:
    return network(DETECTORS, args.detector) if args.detector else default_detector()


def align_one(path: Path, target: Path, detector: Any, args: argparse.Namespace) -> list[Path]:
    """Write the clips of one video; returns their files.

    Raises:
        UserError: it cannot be read, or gives no clip.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if detector is None or is_aligned(path, detector):
        return [take(path, target, args)]
    options = argparse.Namespace(**{**vars(args), "crf": CRF})
    return align_video(path, target, detector, options)


def is_aligned(path: Path, detector: Any) -> bool:
    """Whether the frames are square, and the face is where alignment would put it.

    Looks at some frames, spread over the video. A turned head moves the points: the median counts.
    """
    info = probe(path)
    if info.height != info.width:
        return False
    step = max(1, (info.frames - 1) // (LOOKED_AT - 1))
    frames = read_video(path, 0, min(info.frames, LOOKED_AT), step)
    moved = [corner_motion(faces[0].points, info.height) for frame in frames if (faces := detector(frame))]
    return bool(moved) and float(np.median(moved)) <= NEAR


def corner_motion(points: np.ndarray, side: int) -> float:
    """How far aligning a face with these points (5, 2) moves the corners of a square frame; a share of its side."""
    corners = side * np.array([(0, 0), (1, 0), (0, 1), (1, 1)], np.float64)
    return float(np.linalg.norm(transform(similarity(points, side), corners) - corners, axis=1).max()) / side


def take(path: Path, target: Path, args: argparse.Namespace) -> Path:
    """Copy a square clip of an aligned face.

    Raises:
        UserError: it is not square, too short or too small, or cannot be decoded.
    """
    info = probe(path)
    if info.height != info.width:
        raise UserError(f"{path}: is {info.width}×{info.height}, not square; without --aligned its face is aligned")
    if info.frames < args.min_frames:
        raise UserError(f"{path}: too short: {info.frames} frames of {args.min_frames} (--min-frames)")
    if (scale := args.size / info.height) > args.largest:
        raise UserError(f"{path}: is small: it would be enlarged {scale:.1f} times (--largest {args.largest:g})")
    for _ in islice(iter_video(path), args.max_frames):
        pass
    with AtomicWrite(target) as temporary:
        shutil.copyfile(path, temporary)
    return target


def people_of(record: Record) -> dict[str, list[str]]:
    """Person → their clips: a person is a video, or all videos of one subfolder."""
    people: dict[str, list[str]] = {}
    for video in record.videos.values():
        if video["clips"]:
            people.setdefault(video["person"], []).extend(video["clips"])
    return dict(sorted(people.items()))
