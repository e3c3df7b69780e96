"""From one video to its folder of clips."""

import argparse
import json
import shutil
from typing import Any

from keep.data.tools.wild.clips import pieces
from keep.data.tools.wild.report import write_json
from keep.data.tools.wild.sheet import sheet
from keep.data.tools.wild.source import Source
from keep.data.video_io import VideoInfo, iter_video, probe
from keep.faces.detect import Detector, Face
from keep.faces.track import Track, Tracker, interpolated
from keep.utils.errors import UserError
from keep.utils.io import AtomicWrite, remove_leftovers


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
    old = [args.out / p / source.name for p in ("val", "clips") if (args.out / p / source.name).is_dir()]
    folder = old[0] if old else args.out / place / source.name
    remove_leftovers(folder)
    unfinished = AtomicWrite(folder)
    unfinished.temporary.mkdir(parents=True)
    try:
        info = probe(source.path)
        tracks = tracks_of(source, info, args, detector, new_shots, bar)
        for track in tracks:
            for number, piece in enumerate(pieces(source, track, info, args)):
                piece.write(unfinished.temporary, number, source, info, args, identity)
        if source.clips:
            sheet(source, unfinished.temporary, args)
        for path in old:
            shutil.rmtree(path)
        if source.clips:
            unfinished.commit()
    except UserError as error:
        source.problem = str(error)
        source.clips.clear()
        return source  # not recorded: the next run looks at it again
    finally:
        unfinished.discard()
    write_json(
        record,
        {
            "source": str(source.path), "frames": source.frames, "shots": source.shots, "tracks": source.tracks,
            "clips": source.clips, "rejects": source.rejects, "problem": None, "made_with": made_with,
        },
    )  # fmt: skip
    return source


def tracks_of(
    source: Source, info: VideoInfo, args: argparse.Namespace, detector: Detector, new_shots: Any, bar: Any
) -> list[Track]:
    """One pass over the video: its cuts, and its faces joined into tracks. The bar gets a step a frame."""
    if args.longest_side:
        detector.longest_side = min(args.longest_side, detector.longest_side or args.longest_side)
    shots, found = new_shots(float(info.fps)), []
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
