"""Pack a folder of clips into one file, to move a small set to another machine.

    python -m scripts.pack_clips datasets/my_videos my_videos.zip               # the video files as they are
    python -m scripts.pack_clips datasets/my_videos my_videos.zip --codec libx264 --size 512   # key frames every 12
    python -m scripts.pack_clips datasets/VFHQ/train vfhq.zip --codec libx264 --crf 12

Encoded again, with many key frames, a clip is read several times faster than from a video of the web.
Train on it where it is, nothing to unpack: ``--set data.train.type=PackedClips --set data.train.root=my_videos.zip``.
"""  # fmt: skip

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keep.cli import run
from keep.config import import_registered
from keep.data.packed import pack_clips
from keep.errors import UserError
from keep.registry import DATASETS
from scripts.arguments import Parser
from scripts.make_splits import layout


def pack(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    import_registered()
    kind = args.type or layout(args.root)
    codec = args.codec or ("copy" if kind == "VideoClips" else "ffv1")
    if codec == "copy" and (args.size or args.max_frames):
        raise UserError("--size and --max-frames need the frames encoded again: name --codec libx264 or ffv1 too")
    dataset: Any = DATASETS[kind](str(args.root), size=args.size or 512, max_frames=args.max_frames)
    pack_clips(dataset, args.out, codec=codec, crf=args.crf, keyint=args.keyint)
    frames = sum(min(clip.frames, args.max_frames or clip.frames) for clip in dataset.clips)
    print(f"{args.out}: {len(dataset)} clips, {frames} frames, {args.out.stat().st_size / 1e6:.1f} MB ({codec})")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = Parser(prog="scripts.pack_clips", description="pack a folder of clips into one file")
    p.add_argument("root", type=Path, help="folder of clips: videos, or folders of frames")
    p.add_argument("out", type=Path, help="the file to write (.zip)")
    p.add_argument(
        "--codec", choices=("copy", "libx264", "ffv1"),
        help="copy: video files byte for byte; libx264: smaller; ffv1: lossless (default: copy, or ffv1 for frames)",
    )  # fmt: skip
    p.add_argument("--crf", type=int, default=12, help="libx264's quality, lower is better (12)")
    p.add_argument("--keyint", type=int, default=12, help="frames from key frame to key frame; fewer read faster (12)")
    p.add_argument("--size", type=int, help="side of the square that frames are cut and resized to (512)")
    p.add_argument("--max-frames", type=int, help="only the first so many frames of each clip")
    p.add_argument(
        "--type", help="dataset class that reads ROOT (default: VideoClips or FrameFolders, by what is there)"
    )
    args = p.parse_args(argv)
    if not args.root.is_dir():
        raise UserError(f"{args.root}: no such folder of clips")
    return args


if __name__ == "__main__":
    sys.exit(run(pack))
