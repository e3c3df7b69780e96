"""From one video to its folder of clips."""

import argparse
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from keep.data.timeline import VideoInfo
from keep.data.tools.collect_clips import cut_track, write_clip
from keep.data.tools.collect_report import write_json
from keep.data.tools.collect_sheet import write_sheet
from keep.data.tools.collect_source import Source
from keep.data.video_io import iter_video, probe
from keep.faces.detect import Face
from keep.faces.track import Track, Tracker, interpolated
from keep.utils.errors import UserError
from keep.utils.io import AtomicWrite, remove_leftovers


@dataclass
class Setup:
    """What is the same for all videos.

    Attributes:
        args: the command line.
        settings: the options that shape the clips; stored with every video.
        detector: face detector.
        identity: identity network, or None.
        new_shots: makes a shot finder for a video.
    """

    args: argparse.Namespace
    settings: dict[str, Any]
    detector: Any
    identity: Any
    new_shots: Any


def collect_video(source: Source, part: str, setup: Setup, bar: tqdm) -> Source:
    """Collect from one video, or load what an earlier run collected with the same options.

    The clips are written to the folder ``part`` (``clips`` or ``val``). If an earlier run with other options wrote
    clips of this video, they are replaced where they are.
    """
    out = setup.args.out
    record = out / "sources" / f"{source.name}.json"
    stat = source.path.stat()
    made_with = {"bytes": stat.st_size, "modified": stat.st_mtime_ns, **setup.settings}
    if record.is_file():
        stored = json.loads(record.read_text(encoding="utf-8"))
        if stored["made_with"] == made_with:
            keys = ("clips", "rejects", "problem", "shots", "tracks", "frames")
            return Source(source.path, source.name, **{k: stored[k] for k in keys})
    try:
        write_clips(source, part, setup, bar)
    except UserError as error:
        source.problem = str(error)
        source.clips.clear()
        return source  # without a record: the next run tries again
    write_json(
        record,
        {
            "source": str(source.path), "frames": source.frames, "shots": source.shots, "tracks": source.tracks,
            "clips": source.clips, "rejects": source.rejects, "problem": None, "made_with": made_with,
        },
    )  # fmt: skip
    return source


def write_clips(source: Source, part: str, setup: Setup, bar: tqdm) -> None:
    """Write the video's clips into its folder, which replaces an older one when it is complete."""
    out = setup.args.out
    old = [out / p / source.name for p in ("val", "clips") if (out / p / source.name).is_dir()]
    folder: Path = old[0] if old else out / part / source.name
    remove_leftovers(folder)
    unfinished = AtomicWrite(folder)
    unfinished.temporary.mkdir(parents=True)
    try:
        info = probe(source.path)
        for track in find_tracks(source, info, setup, bar):
            for number, piece in enumerate(cut_track(source, track, info, setup.args)):
                write_clip(piece, number, unfinished.temporary, source, info, setup.args, setup.identity)
        if source.clips:
            write_sheet(source, unfinished.temporary, setup.args)
        for path in old:
            shutil.rmtree(path)
        if source.clips:
            unfinished.commit()
    finally:
        unfinished.discard()


def find_tracks(source: Source, info: VideoInfo, setup: Setup, bar: tqdm) -> list[Track]:
    """Find cuts and faces in one pass over the video, and join the faces into tracks. The bar advances a frame each."""
    args, detector = setup.args, setup.detector
    if args.longest_side:
        detector.longest_side = min(args.longest_side, detector.longest_side or args.longest_side)
    shots, found = setup.new_shots(float(info.fps)), []
    for t, frame in enumerate(iter_video(source.path)):
        bar.update()
        shots.update(t, frame)
        found.append(detector(frame) if t % args.every == 0 else None)
    cuts = set(shots.finish())
    source.frames, source.shots = len(found), len(cuts) + 1
    tracks = join_faces(found, cuts, args)
    source.tracks = len(tracks)
    if not tracks:
        source.reject("detection", "no face", frames=[0, len(found)])
    return tracks


def join_faces(found: list[list[Face] | None], cuts: set[int], args: argparse.Namespace) -> list[Track]:
    """Join the faces of each shot into tracks. ``found`` holds None for frames without detection."""
    tracker = Tracker(patience=max(args.gap, args.every) + 1)
    for t, faces in enumerate(found):
        if t in cuts:
            tracker.cut()
        if faces is not None:
            tracker.update(t, faces)
    return interpolated(tracker.finish(), args.every)
