"""Pack folders of clips into one file, to move a small set to another machine.

    keep-data pack datasets/my_videos my_videos.zip               # the video files as they are
    keep-data pack datasets/my_videos my_videos.zip --codec libx264 --size 512   # key frames every 12
    keep-data pack datasets/VFHQ/train vfhq.zip --codec libx264 --crf 12
    keep-data pack faces/videos faces.zip --photographs faces/images --size 256 --codec libx264

``--codec libx264`` encodes clips again with many key frames; they are then read several times faster than videos from
the web. A photograph becomes a clip of one frame; the option ``move_stills`` makes longer clips of it. For the sizes of
options/small and options/nano see docs/small_models.md. Training reads the file directly, without unpacking:
``--set data.train.type=PackedClips --set data.train.root=my_videos.zip``.
"""  # fmt: skip

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keep.config import arguments
from keep.config.cli import Parser, check_folder, check_new, run
from keep.config.plugins import import_registered
from keep.config.registry import DATASETS
from keep.data.packed import PackedClips, pack_clips
from keep.data.tools.layout import dataset_for
from keep.utils.errors import UserError
from keep.utils.lock import lock


def pack(argv: Sequence[str] | None) -> None:
    args = parse(argv)
    import_registered()
    kinds = {root: args.type or dataset_for(root) for root in args.roots}
    kinds |= dict.fromkeys(args.photographs, "ImageFolder")
    codec = args.codec or ("copy" if set(kinds.values()) == {"VideoClips"} and not args.piece else "ffv1")
    if codec == "copy" and (args.size or args.max_frames):
        raise UserError("--size and --max-frames need new encoding: add --codec libx264 or ffv1")
    options: dict[str, Any] = {"size": args.size or 512, "max_frames": args.max_frames}
    if not args.out.parent.is_dir():
        raise UserError(f"{args.out}: cannot write: there is no folder {args.out.parent}")
    with lock(args.out):
        datasets = [DATASETS[kind](str(root), **options) for root, kind in kinds.items()]
        pack_clips(datasets, args.out, codec=codec, crf=args.crf, keyint=args.keyint, piece=args.piece)
    clips = PackedClips(str(args.out)).clips
    frames, size = sum(clip.frames for clip in clips), args.out.stat().st_size
    print(f"{args.out}: {len(clips)} clips, {frames} frames, {size / 1e6:.1f} MB ({codec})")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = Parser(prog="keep-data pack", description="Pack folders of clips into one file.")
    p.add_argument("roots", type=Path, nargs="+", metavar="root", help="folders of videos, or of folders of frames")
    p.add_argument("out", type=Path, help="the file to write (.zip)")
    p.add_argument(
        "--photographs", type=Path, action="append", default=[], metavar="FOLDER",
        help="also pack the images of this folder and its subfolders, each as a clip of one frame; repeatable",
    )  # fmt: skip
    p.add_argument(
        "--codec", choices=("copy", "libx264", "ffv1"),
        help="copy: video files byte for byte; libx264: smaller; ffv1: lossless (default: copy, or ffv1 for frames)",
    )  # fmt: skip
    p.add_argument("--crf", type=arguments.crf, default=12, help="libx264's quality, lower is better (12)")
    p.add_argument(
        "--keyint", type=arguments.count, default=12, help="distance of key frames; smaller values read faster (12)"
    )
    p.add_argument("--size", type=arguments.side, help="crop frames to a square and resize it to this side (512)")
    p.add_argument("--max-frames", type=arguments.count, help="pack only the first frames of each clip, this many")
    p.add_argument("--piece", type=arguments.count, help="cut clips into pieces of this many frames (default: no cuts)")
    p.add_argument(
        "--type", help="dataset class that reads the folders (default: VideoClips or FrameFolders, by their files)"
    )
    p.add_argument("--overwrite", action="store_true", help="replace an existing file")
    args = p.parse_args(argv)
    check_new([args.out], args.overwrite)
    for root in [*args.roots, *args.photographs]:
        check_folder(root, " of clips")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    return run(pack, argv)
