"""Degraded test splits on disk, from a folder of ground-truth clips.

    keep-data splits datasets/VFHQ-Test/GT datasets/VFHQ-Test/splits
    keep-data splits GT splits --levels heavy my_level.yml --format h264 --seed 1

Writes ``OUT/mild``, ``OUT/medium`` and ``OUT/heavy``: every clip, as lossless frames or as the H.264 stream itself,
degraded by the levels of table A1 (``options/degradation/*.yml``, whose σ is for 512×512 frames and is scaled to
``--size``), and a ``manifest.json`` of the parameters drawn. The clips equal those that ``keep.test`` makes on reading
with the same seed. ``OUT/test.yml`` tests on them.

A level appears when it is complete; until then it is ``OUT/.mild.unfinished``. After an interruption, run the command
again: written clips are skipped, and finished levels are checked against their manifests. Bad clips are listed at the
end; the exit status is then 1.
"""  # fmt: skip

import argparse
import copy
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from keep.config import arguments
from keep.config.cli import Parser, check_apart, check_folder, check_output, run
from keep.config.plugins import import_registered
from keep.config.registry import DATASETS
from keep.data.tools.layout import dataset_for
from keep.data.tools.splits_folder import Split
from keep.utils.errors import UserError
from keep.utils.io import write_file
from keep.utils.lock import lock
from keep.utils.progress import progress_bar
from keep.utils.tables import console_table


def make_splits(argv: Sequence[str] | None) -> int:
    args = parse(argv)
    import_registered()
    with lock(args.out):
        return write_splits(args)


def write_splits(args: argparse.Namespace) -> int:
    kind = args.type or dataset_for(args.gt)
    dataset, bad = open_clips(kind, args)
    splits = [Split(level, args, [clip.name for clip in dataset.clips]) for level in args.levels]
    bad += degrade(dataset, splits, args.seed)
    if bad:
        print("\n  ".join([f"{len(bad)} bad clips:", *bad]), file=sys.stderr)
        print("repair or remove them and run the command again: written clips are skipped", file=sys.stderr)
        return 1
    for split in splits:
        split.finish()
    print(console_table([split.summary() for split in splits], ["split", "clips", "frames", "MB", "made"], digits=1))
    options = args.out / "test.yml"
    write_file(options, test_options(splits, kind, args))
    print(f"test on them: keep-test -opt {options}  (add your restorers to it)")
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = Parser(prog="keep-data splits", description="Write degraded test splits to disk.")
    p.add_argument("gt", type=Path, help="folder of ground-truth clips: videos, or folders of frames")
    p.add_argument("out", type=Path, help="folder to write; each level becomes a folder in it")
    p.add_argument(
        "--levels", nargs="+", default=["mild", "medium", "heavy"], metavar="LEVEL",
        help="names in options/degradation, or YAML files with one data.NAME.degradation (default: mild medium heavy)",
    )  # fmt: skip
    p.add_argument("--format", choices=("frames", "h264"), default="frames", help="lossless PNG, or the H.264 stream")
    p.add_argument("--seed", type=arguments.seed, default=0, help="seed of the drawn parameters (0, as in keep.test)")
    p.add_argument("--size", type=arguments.side, default=512, help="side of the ground-truth frames (512)")
    p.add_argument("--max-frames", type=arguments.count, help="use only the first frames of each clip, this many")
    p.add_argument("--type", help="dataset class that reads GT (default: VideoClips or FrameFolders, by its files)")
    args = p.parse_args(argv)
    check_folder(args.gt, " of ground-truth clips")
    check_apart(args.gt, args.out)
    for level in args.levels:
        if args.gt.resolve().is_relative_to((args.out / Path(level).stem).resolve()):
            raise UserError(f"{args.gt} is where the level {level} would be written: choose another folder")
    check_output(args.out)
    return args


def open_clips(kind: str, args: argparse.Namespace) -> tuple[Any, list[str]]:
    """The dataset of the ground truth, and a line for each clip that cannot be opened.

    Raises:
        UserError: no clip can be opened.
    """
    bad: list[str] = []

    class Clips(DATASETS[kind]):  # pyright: ignore[reportGeneralTypeIssues]
        """Collects bad clips; the class itself would stop at the first."""

        def reject(self, reason: str) -> None:
            bad.append(reason)

    try:
        return Clips(str(args.gt), size=args.size, max_frames=args.max_frames), bad
    except UserError:
        if not bad:
            raise
    raise UserError("\n  ".join([f"{args.gt}: all {len(bad)} clips are bad:", *bad]))


def degrade(dataset: Any, splits: Sequence[Split], seed: int) -> list[str]:
    """Write every clip that is missing in a split; returns a line for each clip that cannot be read."""
    bad = []
    with progress_bar(
        total=len(dataset.clips) * len(splits), desc="degrading", unit=" clips", delay=2, leave=False
    ) as bar:
        for i, clip in enumerate(dataset.clips):
            pending = [split for split in splits if not split.has(clip.name, i)]
            bar.update(len(splits) - len(pending))
            if not pending:
                continue
            try:
                truth = dataset.ground_truth(seed, i)
                for split in pending:
                    split.write(clip.name, i, truth.gt, copy.deepcopy(truth.rng))
                    bar.update()
            except UserError as error:
                bad.append(str(error))
    return bad


def test_options(splits: Sequence[Split], kind: str, args: argparse.Namespace) -> str:
    """Options for keep.test, as YAML: these splits with their ground truth, from the present folder."""
    gt = {"type": kind, "root": from_here(args.gt), "size": args.size, "max_frames": args.max_frames}
    data = {s.name: {"type": "PairedClips", "lq": from_here(s.folder), "gt": gt} for s in splits}
    options = {
        "name": re.sub(r"[^\w.+-]+", "_", args.out.resolve().name).lstrip(".+-") or "splits",
        "data": data,
        "restorers": {"bicubic": {"type": "Bicubic"}},
        "metrics": ["PSNR", "SSIM"],
    }
    return yaml.dump(options, Dumper=PlainDumper, sort_keys=False, width=110)


def from_here(path: Path) -> str:
    """``path`` relative to the present folder, as paths in options are; as it is where it lies elsewhere."""
    full, here = path.resolve(), Path.cwd()
    return str(full.relative_to(here)) if full.is_relative_to(here) else str(full)


class PlainDumper(yaml.SafeDumper):
    """Writes repeated mappings in full, without anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def main(argv: Sequence[str] | None = None) -> int:
    return run(make_splits, argv)
