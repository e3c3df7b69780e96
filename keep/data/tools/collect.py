"""Clips of one person each, aligned, from raw videos: as the test set of real faces was made (supplement A.4).

    keep-data collect raw_videos datasets/wild
    keep-data collect raw_videos datasets/mine --val 10 --min-face 256 --min-sharpness 60 --codec ffv1
    keep-data collect talk.mp4 out --detector YuNet=yunet.onnx --every 3 --identity Dlib

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
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import av
import av.error
from tqdm import tqdm

from keep.config.cli import Parser, check_output, network, run
from keep.config.plugins import import_registered
from keep.config.registry import DETECTORS, IDENTITIES
from keep.data.tools.wild.report import report, why_none
from keep.data.tools.wild.source import Source
from keep.data.tools.wild.video import one_source
from keep.data.video_io import VIDEO_SUFFIXES
from keep.faces.cuts import shot_finder
from keep.faces.detect import default_detector
from keep.utils.errors import UserError


def collect(argv: Sequence[str] | None) -> int:
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
        with av.open(str(path.absolute())) as container:
            stream = container.streams.video[0]
            seconds = container.duration / av.time_base if container.duration else 0
            return stream.frames or round(seconds * (stream.average_rate or 0))
    except (av.error.FFmpegError, IndexError, OSError):
        return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = Parser(prog="keep-data collect", description="aligned one-person clips from raw videos")
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


def main(argv: Sequence[str] | None = None) -> int:
    return run(collect, argv)
