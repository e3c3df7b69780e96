"""The clips of ``keep-data quickstart``: aligned faces of a folder of videos, with a record of each video."""

import argparse
import json
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from keep.config.cli import network
from keep.config.registry import DETECTORS
from keep.data.tools.align import align_video
from keep.data.tools.collect import find_videos, flat_name
from keep.data.video_io import iter_video, probe, read_video
from keep.faces.align import similarity, transform
from keep.faces.detect import default_detector
from keep.utils.downloads import sha256
from keep.utils.errors import UserError
from keep.utils.io import AtomicWrite, write_file
from keep.utils.progress import progress_bar

CRF = 10
"""H.264 quality of the aligned clips."""
LOOKED_AT = 3
"""Frames of a square video that tell whether its face is aligned."""
NEAR = 0.12
"""A face counts as aligned if aligning it moves no corner of the frame further than this share of its side. Measured
with CenterFace: 0.026 to 0.114 on twelve aligned clips; 0.133 and more on nine square clips that are not."""


class Record:
    """``OUT/quickstart.json``: the settings, the detector with its weight files, and for each video its size and time,
    whether its face was ``aligned`` or it was ``copied`` as it was, its clips or its problem.

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
        self.detector: dict[str, Any] | None = None
        if self.path.is_file():
            settings, videos, self.detector = stored_record(self.path)
            changed = [f"--{k.replace('_', '-')}" for k in keys if settings.get(k) != self.settings[k]]
            if changed:
                raise UserError(
                    f"{args.out}: was begun with another {' and '.join(changed)}; remove it, or name another folder"
                )
            self.videos = videos
        elif args.out.is_dir() and any(args.out.iterdir()):
            raise UserError(f"{args.out}: holds other files; name a new folder with -o")

    def save(self, **more: Any) -> None:
        content = {"settings": self.settings, "detector": self.detector, "videos": self.videos, **more}
        write_file(self.path, json.dumps(content, indent=1, ensure_ascii=False))

    def finish(self, parts: dict[str, list[str]]) -> None:
        """Save who is in which part."""
        self.save(parts=parts)

    def use(self, detector: Any) -> None:
        """Record the detector.

        Raises:
            UserError: the videos so far were aligned with another one.
        """
        found = described(detector)
        if self.detector not in (None, found):
            raise UserError(
                f"{self.path.parent}: was begun with the detector {self.detector['name']} or other weights of it, this "
                f"is {found['name']}; name that one with --detector, or another folder with -o"
            )
        self.detector = found

    def count(self, how: str) -> int:
        """Number of videos that were ``aligned`` or ``copied`` and give clips."""
        return sum(video.get("how") == how for video in self.videos.values() if video["clips"])

    def problems(self) -> list[str]:
        return [video["problem"] for video in self.videos.values() if video["problem"]]


def described(detector: Any) -> dict[str, Any]:
    """A detector as plain data: its name, and weight file → sha256."""
    return {"name": detector.name, "weights": {path.name: sha256(path) for path in detector.files}}


def stored_record(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]], dict[str, Any] | None]:
    """The settings, the videos and the detector of an earlier ``quickstart.json``; older ones do not name it.

    Raises:
        UserError: the file is something else.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        settings, videos, detector = stored["settings"], stored["videos"], stored.get("detector")
    except (ValueError, KeyError, TypeError, AttributeError):
        settings = videos = detector = None
    known = detector is None or (isinstance(detector, dict) and "name" in detector)
    if not isinstance(settings, dict) or not isinstance(videos, dict) or not known:
        raise UserError(f"{path.parent}: holds other files; name a new folder with -o")
    return settings, videos, detector


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
    if detector is not None:
        record.use(detector)
    for name in progress_bar(pending, desc="aligning faces", unit=" videos", delay=2):
        how, clips, problem = None, [], None
        try:
            target = args.out / "clips" / f"{name}{paths[name].suffix}"
            how, files = align_one(paths[name], target, detector, args)
            clips = [path.stem for path in files]
        except UserError as error:
            problem = str(error)
        person = paths[name].relative_to(args.folder).with_suffix("").parts[0]
        about = {"state": states[name], "person": person, "how": how, "clips": clips, "problem": problem}
        record.videos[name] = about
        record.save()


def load_detector(args: argparse.Namespace) -> Any:
    return network(DETECTORS, args.detector) if args.detector else default_detector()


def align_one(path: Path, target: Path, detector: Any, args: argparse.Namespace) -> tuple[str, list[Path]]:
    """Write the clips of one video; returns whether they were ``aligned`` or ``copied``, and their files.

    Raises:
        UserError: it cannot be read, or gives no clip.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if detector is None or is_aligned(path, detector):
        return "copied", [take(path, target, args)]
    options = argparse.Namespace(**{**vars(args), "crf": CRF})
    return "aligned", align_video(path, target, detector, options)


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
