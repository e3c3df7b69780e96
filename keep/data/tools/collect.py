"""Aligned one-person clips from raw videos, made as the paper's test set of real faces was (supplement A.4).

    keep-data collect raw_videos datasets/wild
    keep-data collect raw_videos datasets/mine --val 10 --min-face 160 --min-sharpness 60 --codec ffv1
    keep-data collect talk.mp4 out --detector YuNet=yunet.onnx --every 3 --identity Dlib

Each video is cut into shots. In each shot faces are detected and joined into tracks. The landmarks of a track are
smoothed by eq. (10), and the track becomes clips of 100 to 300 frames, cropped to 512×512 on the FFHQ template. Writes

    OUT/clips/VIDEO/s000_p00_0.mp4   a clip (shot, person, piece), for the dataset VideoClips with root OUT/clips
    OUT/clips/VIDEO/s000_p00_0.npz   its frame numbers, points (as found, and smoothed), boxes, crop matrices
    OUT/val/VIDEO/…                  with --val N: the same for every Nth video that gives a clip
    OUT/sources/VIDEO.json           the video, the options, its clips, its rejects with reasons
    OUT/sheets/VIDEO.png             frames of its clips, and the nose before and after smoothing
    OUT/manifest.json                all clips, each with its folder: clips, val, or null if it was moved; the options
    OUT/report.json                  all rejects, counted by reason

A video's folder appears when it is complete. After an interruption, run the command again: videos that are listed in
OUT/sources are skipped, even if their clips were moved or removed. The exit status is 1 if a video could not be read,
or if no clip was kept.
"""  # fmt: skip

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import av
import av.error

from keep.config import arguments
from keep.config.cli import Parser, check_apart, check_output, network, run
from keep.config.plugins import import_registered
from keep.config.registry import DETECTORS, IDENTITIES
from keep.data.decode import frame_rate
from keep.data.tools.collect_report import explain_no_clips, write_reports
from keep.data.tools.collect_source import Source
from keep.data.tools.collect_video import Setup, collect_video
from keep.data.video_io import VIDEO_SUFFIXES
from keep.faces.cuts import shot_finder
from keep.faces.detect import default_detector
from keep.utils.errors import UserError
from keep.utils.lock import lock
from keep.utils.progress import progress_bar


def collect(argv: Sequence[str] | None) -> int:
    args = parse(argv)
    import_registered()
    with lock(args.out):
        return collect_videos(args)


def collect_videos(args: argparse.Namespace) -> int:
    paths = find_videos(args.raw)
    setup = set_up(args)
    sources: list[Source] = []
    expected = {path: stated_frames(path) for path in paths}
    done = 0
    with progress_bar(total=sum(expected.values()), desc="collecting", unit=" frames", delay=2) as bar:
        for number, path in enumerate(paths, 1):
            name = flat_name(path, args.raw)
            # A refresh would not wait for the delay.
            bar.set_postfix_str(f"video {number} of {len(paths)}: {name[-30:]}", refresh=False)
            kept = sum(bool(s.clips) for s in sources)
            part = "val" if args.val and kept % args.val == args.val - 1 else "clips"
            source = collect_video(Source(path, name), part, setup, bar)
            sources.append(source)
            # The stated length may be wrong, and a video that is skipped advances the bar by its full length.
            done += source.frames
            bar.total += source.frames - expected[path]
            bar.update(done - bar.n)
    print(write_reports(sources, args.out, setup.settings))
    if not any(source.clips for source in sources):
        print(f"error: no clip was kept: {explain_no_clips(sources, args)}", file=sys.stderr)
        return 1
    return 1 if any(source.problem for source in sources) else 0


def set_up(args: argparse.Namespace) -> Setup:
    """Load the networks that the command line names."""
    detector = network(DETECTORS, args.detector) if args.detector else default_detector()
    identity = network(IDENTITIES, args.identity) if args.identity else None
    for part in (detector, identity):
        if part is not None:
            part.to(args.device)
    settings = {
        **{k: v for k, v in vars(args).items() if k not in ("raw", "out", "val", "device")},
        "detector": detector.name,
        "identity": identity and identity.name,
    }
    return Setup(args, settings, detector, identity, shot_finder(args.shots))


def stated_frames(path: Path) -> int:
    """The number of frames according to the file's header, for the progress bar; 0 if it has none."""
    try:
        with av.open(str(path.absolute())) as container:
            stream = container.streams.video[0]
            seconds = container.duration / av.time_base if container.duration else 0
            return stream.frames or round(seconds * frame_rate(stream))
    except (av.error.FFmpegError, IndexError, OSError):
        return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    args = parser().parse_args(argv)
    if args.val == 1:
        raise UserError("--val must be at least 2, or 0 for none: with 1 no clips would remain for training")
    check_apart(args.raw, args.out)
    check_output(args.out)
    if args.max_length < args.min_length:
        raise UserError(f"--max-length {args.max_length} is less than --min-length {args.min_length}")
    return args


def parser() -> Parser:
    p = Parser(prog="keep-data collect", description="Make aligned one-person clips from raw videos.")
    p.add_argument("raw", type=Path, help="a video, or a folder that is searched with all its subfolders")
    p.add_argument("out", type=Path, help="folder to write")
    p.add_argument(
        "--val", type=arguments.count_or_none, default=0, metavar="N",
        help="write the clips of every Nth video that gives any to OUT/val (0: none)",
    )  # fmt: skip
    p.add_argument("--detector", metavar="NAME[=FILE]", help="face detector; default: the best available one")
    p.add_argument("--identity", metavar="NAME[=FILE]", help="check with this identity network: one person a clip")
    p.add_argument(
        "--shots", choices=("both", "scenedetect", "builtin"), default="both",
        help="shot detector: PySceneDetect, that of keep.faces.shots, or a cut where either finds one (default)",
    )  # fmt: skip
    p.add_argument(
        "--every", type=arguments.count, default=1, metavar="N", help="detect faces in every Nth frame (default 1)"
    )
    p.add_argument(
        "--longest-side", type=arguments.side, metavar="PX", help="shrink frames to this size before detection"
    )
    p.add_argument(
        "--min-length", type=arguments.count, default=100, metavar="FRAMES", help="shortest clip (default 100)"
    )
    p.add_argument(
        "--max-length", type=arguments.count, default=300, metavar="FRAMES", help="longest clip (default 300)"
    )
    p.add_argument(
        "--max-clips",
        type=arguments.count_or_none,
        default=0,
        metavar="N",
        help="clips of one track; 0: no limit (default)",
    )
    p.add_argument(
        "--gap",
        type=arguments.count_or_none,
        default=10,
        metavar="FRAMES",
        help="longest gap without a face to fill (10)",
    )
    p.add_argument(
        "--min-face",
        type=arguments.pixels,
        default=64,
        metavar="PX",
        help="shorter side of its box; 160 and more suits 512×512 crops (default 64)",
    )
    p.add_argument(
        "--min-score", type=arguments.share, default=0, help="lowest median of the detector's scores (default 0)"
    )
    p.add_argument(
        "--min-sharpness", type=arguments.number(0, 1e6), default=0, metavar="V",
        help="variance of the Laplacian of the face at 256×256; 60 and more is sharp (default 0)",
    )  # fmt: skip
    p.add_argument(
        "--max-outside", type=arguments.share, default=0.5, metavar="SHARE", help="of a crop, outside the frame (0.5)"
    )
    p.add_argument("--sigma", type=arguments.sigma, default=5, help="of the smoothing over time, in frames (default 5)")
    p.add_argument("--size", type=arguments.side, default=512, metavar="PX", help="side of the crops (default 512)")
    p.add_argument("--codec", choices=("libx264", "ffv1"), default="libx264", help="ffv1 is lossless (default libx264)")
    p.add_argument("--crf", type=arguments.crf, default=10, help="quality of libx264, lower is better (default 10)")
    p.add_argument("--device", default="cpu", help="device of the networks (default cpu)")
    return p


def find_videos(raw: Path) -> list[Path]:
    """The videos below ``raw``, or ``raw`` itself.

    Raises:
        UserError: no video, or two that would get the same name.
    """
    if raw.is_file():
        return [raw]
    if not raw.is_dir():
        raise UserError(f"{raw}: no such file or folder")
    paths = sorted(p for p in raw.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and not p.name.startswith("."))
    if not paths:
        raise UserError(f"{raw}: holds no video ({', '.join(sorted(VIDEO_SUFFIXES))})")
    name, times = Counter(flat_name(p, raw) for p in paths).most_common(1)[0]
    if times > 1:
        raise UserError(f"{times} videos are named {name}; results are stored by name: rename one")
    return paths


def flat_name(path: Path, raw: Path) -> str:
    """The path below ``raw`` without suffix, joined by ``__``."""
    return path.stem if path == raw else "__".join(path.relative_to(raw).with_suffix("").parts)


def main(argv: Sequence[str] | None = None) -> int:
    return run(collect, argv)
