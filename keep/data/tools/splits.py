"""Degraded test splits on disk, from a folder of ground-truth clips.

    keep-data splits datasets/VFHQ-Test/GT datasets/VFHQ-Test/splits
    keep-data splits GT splits --levels heavy my_level.yml --format h264 --seed 1

Writes ``OUT/mild``, ``OUT/medium`` and ``OUT/heavy``: the levels of table A1 as ``options/degradation/*.yml`` hold
them, every clip as lossless frames or as the H.264 stream itself, and a ``manifest.json`` of what was drawn. They are
the very clips that ``keep.test`` makes on reading with the same seed. ``OUT/test.yml`` tests on them.

A level is there whole or not at all: until its last clip is done it is ``OUT/.mild.unfinished``. Run again after an
interruption, the clips that are done stay; a finished level is checked against its manifest. Bad clips are listed at
the end, and the exit status is 1.
"""  # fmt: skip

import argparse
import copy
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import yaml
from pydantic import ValidationError
from tqdm import tqdm

from keep.config.cli import Parser, check_output, run
from keep.config.plugins import import_registered
from keep.config.reading import read_yaml
from keep.config.registry import DATASETS, DEGRADATIONS, Spec
from keep.data.video_io import VIDEO_SUFFIXES, read_video
from keep.degradation.codec import encoder_version
from keep.degradation.pipeline import Pipeline
from keep.utils.errors import UserError
from keep.utils.io import write_file
from keep.utils.version import __version__
from keep.utils.visual import console_table

LEVELS = Path(__file__).with_name("levels")  # a link to options/degradation, whose files a wheel holds
BASE_SIZE = 512  # px: the side of the frames that table A1's σ is meant for


def make_splits(argv: Sequence[str] | None) -> int:
    args = parse(argv)
    import_registered()
    kind = args.type or layout(args.gt)
    dataset, bad = open_clips(kind, args)
    names = [clip.name for clip in dataset.clips]
    splits = [Split(level, args, names) for level in args.levels]
    if args.size != BASE_SIZE:
        print(
            f"note: σ is in pixels; table A1 means frames of {BASE_SIZE}×{BASE_SIZE}, these are {args.size}×{args.size}"
        )

    with tqdm(total=len(names) * len(splits), desc="degrading", unit=" clips", delay=2, leave=False) as bar:
        for i, name in enumerate(names):
            waiting = [split for split in splits if not split.has(name, i)]
            bar.update(len(splits) - len(waiting))
            if not waiting:
                continue
            try:
                truth = dataset.ground_truth(args.seed, i)
                for split in waiting:
                    split.write(name, i, truth.gt, copy.deepcopy(truth.rng))
                    bar.update()
            except UserError as error:
                bad.append(str(error))
    if bad:
        print("\n  ".join([f"{len(bad)} bad clips:", *bad]), file=sys.stderr)
        print("mend or remove them, and run this again: the clips that are done stay", file=sys.stderr)
        return 1
    for split in splits:
        split.finish()
    print(console_table([split.summary() for split in splits], ["split", "clips", "frames", "MB", "made"], digits=1))
    options = args.out / "test.yml"
    write_file(options, test_options(splits, kind, args).encode())
    print(f"test on them: python -m keep.test -opt {options}  (name your restorers in it)")
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = Parser(prog="keep-data splits", description="degraded test splits on disk")
    p.add_argument("gt", type=Path, help="folder of ground-truth clips: videos, or folders of frames")
    p.add_argument("out", type=Path, help="folder that will hold one folder a level")
    p.add_argument(
        "--levels", nargs="+", default=["mild", "medium", "heavy"], metavar="LEVEL",
        help="names in options/degradation, or YAML files with one data.NAME.degradation (default: mild medium heavy)",
    )  # fmt: skip
    p.add_argument("--format", choices=("frames", "h264"), default="frames", help="lossless PNG, or the stream itself")
    p.add_argument("--seed", type=int, default=0, help="of all that is drawn; 0 is keep.test's default too")
    p.add_argument("--size", type=int, default=BASE_SIZE, help=f"side of the ground-truth frames ({BASE_SIZE})")
    p.add_argument("--max-frames", type=int, help="use only the first so many frames of each clip")
    p.add_argument("--type", help="dataset class that reads GT (default: VideoClips or FrameFolders, by what is there)")
    args = p.parse_args(argv)
    if args.seed < 0 or args.size < 1 or (args.max_frames is not None and args.max_frames < 1):
        raise UserError("--seed must be at least 0, --size and --max-frames at least 1")
    if not args.gt.is_dir():
        raise UserError(f"{args.gt}: no such folder of ground-truth clips")
    check_output(args.out)
    return args


def layout(root: Path) -> str:
    """The dataset class for a folder: VideoClips where there are video files in it or below it, else FrameFolders."""
    found = any(Path(n).suffix.lower() in VIDEO_SUFFIXES for _, _, names in os.walk(root) for n in names)
    return "VideoClips" if found else "FrameFolders"


def test_options(splits: Sequence["Split"], kind: str, args: argparse.Namespace) -> str:
    """An options file for keep.test: these splits beside their ground truth."""
    gt = {"type": kind, "root": str(args.gt.resolve()), "size": args.size, "max_frames": args.max_frames}
    data = {s.name: {"type": "PairedClips", "lq": str(s.folder.resolve()), "gt": gt} for s in splits}
    options = {
        "name": args.out.resolve().name,
        "data": data,
        "restorers": {"bicubic": {"type": "Bicubic"}},
        "metrics": ["PSNR", "SSIM"],
    }
    return yaml.dump(options, Dumper=PlainDumper, sort_keys=False, width=110)


class PlainDumper(yaml.SafeDumper):
    """Writes a mapping out each time it occurs, without anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def open_clips(kind: str, args: argparse.Namespace) -> tuple[Any, list[str]]:
    """The ground truth, and a line for each clip that cannot be opened."""
    bad: list[str] = []

    class Clips(DATASETS[kind]):  # pyright: ignore[reportGeneralTypeIssues]
        """Notes bad clips, where the class itself would stop at the first."""

        def reject(self, reason: str) -> None:
            bad.append(reason)

    try:
        return Clips(str(args.gt), size=args.size, max_frames=args.max_frames), bad
    except UserError:
        if not bad:
            raise
    raise UserError("\n  ".join([f"{args.gt}: all {len(bad)} clips are bad:", *bad]))


class Split:
    """One level on disk: its clips, and a manifest of how each was made.

    Args:
        level: a name in options/degradation, or a YAML file.
        args: the command line.
        names: the clips it will hold, in their order.

    Raises:
        UserError: no such level; its steps cannot make it of frames of that size; what is on disk was made with other
            settings, or from other clips.
    """

    def __init__(self, level: str, args: argparse.Namespace, names: Sequence[str]) -> None:
        path = Path(level) if level.endswith((".yml", ".yaml")) else LEVELS / f"{level}.yml"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in LEVELS.glob("*.yml")))
            raise UserError(f"--levels {level}: no such level; known: {known}; or name a YAML file")
        steps = read_steps(path)
        self.name, self.format = path.stem, args.format
        self.pipeline = Pipeline([step.build() for step in steps])
        self.try_out(args.size)
        self.folder = args.out / self.name
        self.finished = self.folder.exists()
        self.place = self.folder if self.finished else args.out / f".{self.name}.unfinished"
        settings = {
            "level": self.name,
            "format": args.format,
            "seed": args.seed,
            "size": args.size,
            "max_frames": args.max_frames,
            "degradation": [step.dump() for step in steps],
            "x264": encoder_version("libx264"),
            "versions": {
                "keep": __version__, "av": av.__version__, "opencv": cv2.__version__, "numpy": np.__version__
            },
        }  # fmt: skip
        self.manifest: dict[str, Any] = json.loads(json.dumps({**settings, "clips": {}}))
        self.resume(names)

    def try_out(self, size: int) -> None:
        """Degrade one black frame: what the steps cannot do at all is no fault of the clips."""
        frame = np.zeros((1, size, size, 3), np.uint8)
        drawn = self.pipeline.draw(np.random.default_rng(0))
        try:
            (self.pipeline.stream if self.format == "h264" else self.pipeline.replay)(frame, drawn)
        except UserError as error:
            raise UserError(f"--size {size}, level {self.name}: {error}") from None

    def resume(self, names: Sequence[str]) -> None:
        """Take over what an earlier run made with the same settings."""
        path = self.place / "manifest.json"
        if not path.is_file():
            if self.finished:
                raise UserError(f"{self.place}: is there, but has no manifest.json; remove it or name another folder")
            return
        there = json.loads(path.read_text(encoding="utf-8"))
        other = [k for k in self.manifest if k != "clips" and there.get(k) != self.manifest[k]]
        if self.finished and set(there["clips"]) != set(names):
            other.append("set of clips")
        if other:
            told = ", ".join(other)
            raise UserError(f"{self.place}: was made with another {told}; remove it or name another folder")
        for name in set(there["clips"]) - set(names):
            self.remove(name, there["clips"].pop(name)["frames"])
        self.manifest = there

    def files(self, name: str, frames: int, below: Path) -> list[Path]:
        """Where a clip's files are."""
        if self.format == "h264":
            return [below / f"{name}.mp4"]
        return [below / name / f"{t:05d}.png" for t in range(frames)]

    def remove(self, name: str, frames: int) -> None:
        for path in self.files(name, frames, self.place):
            path.unlink(missing_ok=True)

    def has(self, name: str, position: int) -> bool:
        """Whether the clip is on disk as the manifest says.

        Raises:
            UserError: it is not, though the split was finished.
        """
        record = self.manifest["clips"].get(name)
        good = record is not None and record["position"] == position and self.intact(name, record)
        if self.finished and not good:
            raise UserError(
                f"{self.place}: clip {name} is not what manifest.json says; remove {self.place} and run again"
            )
        return good

    def intact(self, name: str, record: dict[str, Any]) -> bool:
        paths = self.files(name, record["frames"], self.place)
        there = all(path.is_file() for path in paths)
        return there and sha256(path.read_bytes() for path in paths) == record["files_sha256"]

    def write(self, name: str, position: int, gt: np.ndarray, rng: np.random.Generator) -> None:
        """Degrade a clip (uint8 (T, H, W, 3) RGB), write it, and note it in the manifest."""
        drawn = self.pipeline.draw(rng)
        paths = self.files(name, len(gt), self.place)
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        if self.format == "h264":
            write_file(paths[0], self.pipeline.stream(gt, drawn))
            lq = read_video(paths[0])  # hashed as it will be read
        else:
            lq = self.pipeline.replay(gt, drawn)
            for path, frame in zip(paths, lq, strict=True):
                write_file(path, cv2.imencode(".png", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))[1].tobytes())
        self.manifest["clips"][name] = {
            "position": position,
            "frames": len(lq),
            "height": lq.shape[1],
            "width": lq.shape[2],
            "degradation": drawn,
            "pixels_sha256": sha256(frame.tobytes() for frame in lq),
            "files_sha256": sha256(path.read_bytes() for path in paths),
        }
        write_file(self.place / "manifest.json", json.dumps(self.manifest, indent=1, ensure_ascii=False).encode())

    def finish(self) -> None:
        """Give the split its name."""
        if not self.finished:
            clips = dict(sorted(self.manifest["clips"].items(), key=lambda c: c[1]["position"]))
            self.manifest["clips"] = clips  # the same file whether or not the work was interrupted
            write_file(self.place / "manifest.json", json.dumps(self.manifest, indent=1, ensure_ascii=False).encode())
            self.place.replace(self.folder)

    def summary(self) -> dict[str, Any]:
        clips = self.manifest["clips"]
        paths = [p for name, c in clips.items() for p in self.files(name, c["frames"], self.folder)]
        return {
            "split": str(self.folder),
            "clips": len(clips),
            "frames": sum(c["frames"] for c in clips.values()),
            "MB": sum(p.stat().st_size for p in paths) / 1e6,
            "made": "earlier; checked" if self.finished else "now",
        }


def read_steps(path: Path) -> tuple[Spec, ...]:
    """The degradation of the one dataset in a YAML file (``data.NAME.degradation``), checked."""
    data = read_yaml(path).data.get("data")
    datasets = list(data.values()) if isinstance(data, dict) else []
    found = [d["degradation"] for d in datasets if isinstance(d, dict) and d.get("degradation")]
    if len(found) != 1 or not isinstance(found[0], list):
        raise UserError(f"{path}: expected one list of steps at data.NAME.degradation, found {len(found)}")
    try:
        return tuple(DEGRADATIONS.spec(step) for step in found[0])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def sha256(parts: Iterable[bytes]) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part)
    return sha.hexdigest()


def main(argv: Sequence[str] | None = None) -> int:
    return run(make_splits, argv)
