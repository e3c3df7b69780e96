"""One level of ``keep-data splits`` on disk: its clips, and a manifest of how each was made."""

import argparse
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import av
import cv2
import numpy as np
from pydantic import TypeAdapter

from keep.config import shipped
from keep.config.checking import validated
from keep.config.reading import read_yaml
from keep.config.registry import DEGRADATIONS, Spec
from keep.data.video_io import read_video
from keep.degradation.codec import encoder_version
from keep.degradation.pipeline import Pipeline
from keep.utils.errors import UserError
from keep.utils.io import write_file
from keep.utils.version import __version__

STEPS = TypeAdapter(tuple[Annotated[Any, DEGRADATIONS], ...])
LEVELS = shipped.FOLDER / "degradation"


class Split:
    """A folder of degraded clips. Until the last clip is written it is named ``.NAME.unfinished``.

    Args:
        level: a name in options/degradation, or a YAML file.
        args: the command line.
        names: the clips of the split, in order.

    Attributes:
        name: name of the level.
        folder: the final folder.
        finished: whether an earlier run finished it.
        location: the folder that holds the files now.
        manifest: content of manifest.json.

    Raises:
        UserError: no such level; its steps cannot process frames of this size; the folder on disk was made with other
            settings or from other clips.
    """

    def __init__(self, level: str, args: argparse.Namespace, names: Sequence[str]) -> None:
        path = level_file(level)
        steps = read_steps(path)
        self.name, self.format = path.stem, args.format
        self.pipeline = Pipeline([step.build() for step in steps], args.size)
        self.try_steps(args.size)
        self.folder: Path = args.out / self.name
        self.finished = self.folder.exists()
        self.location: Path = self.folder if self.finished else args.out / f".{self.name}.unfinished"
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

    def try_steps(self, size: int) -> None:
        """Degrade one black frame: an impossible size is reported once, not for every clip."""
        frame = np.zeros((1, size, size, 3), np.uint8)
        drawn = self.pipeline.draw(np.random.default_rng(0))
        try:
            (self.pipeline.stream if self.format == "h264" else self.pipeline.replay)(frame, drawn)
        except UserError as error:
            raise UserError(f"--size {size}, level {self.name}: {error}") from None

    def resume(self, names: Sequence[str]) -> None:
        """Load the manifest of an earlier run with the same settings; remove clips that no longer belong to it."""
        path = self.location / "manifest.json"
        if not path.is_file():
            if self.finished:
                raise UserError(f"{self.location}: exists, but has no manifest.json; remove it or name another folder")
            return
        stored = json.loads(path.read_text(encoding="utf-8"))
        different = [k for k in self.manifest if k != "clips" and stored.get(k) != self.manifest[k]]
        if self.finished and set(stored["clips"]) != set(names):
            different.append("set of clips")
        if different:
            what = ", ".join(different)
            raise UserError(f"{self.location}: was made with another {what}; remove it or name another folder")
        for name in set(stored["clips"]) - set(names):
            for file in self.files(name, stored["clips"].pop(name)["frames"], self.location):
                file.unlink(missing_ok=True)
        self.manifest = stored

    def files(self, name: str, frames: int, folder: Path) -> list[Path]:
        """The files of a clip of so many frames."""
        if self.format == "h264":
            return [folder / f"{name}.mp4"]
        return [folder / name / f"{t:05d}.png" for t in range(frames)]

    def has(self, name: str, position: int) -> bool:
        """Whether the clip is on disk as the manifest describes it.

        Raises:
            UserError: it is not, although the split is finished.
        """
        record = self.manifest["clips"].get(name)
        intact = record is not None and record["position"] == position and self.is_intact(name, record)
        if self.finished and not intact:
            raise UserError(
                f"{self.location}: clip {name} differs from manifest.json; remove {self.location} and run again"
            )
        return intact

    def is_intact(self, name: str, record: dict[str, Any]) -> bool:
        paths = self.files(name, record["frames"], self.location)
        exist = all(path.is_file() for path in paths)
        return exist and sha256(path.read_bytes() for path in paths) == record["files_sha256"]

    def write(self, name: str, position: int, gt: np.ndarray, rng: np.random.Generator) -> None:
        """Degrade a clip, uint8 (T, H, W, 3) RGB; write it and add it to the manifest."""
        drawn = self.pipeline.draw(rng)
        paths = self.files(name, len(gt), self.location)
        if self.format == "h264":
            write_file(paths[0], self.pipeline.stream(gt, drawn))
            lq = read_video(paths[0])  # the hash is of the frames as they are read
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
        self.write_manifest()

    def write_manifest(self) -> None:
        write_file(self.location / "manifest.json", json.dumps(self.manifest, indent=1, ensure_ascii=False))

    def finish(self) -> None:
        """Rename the folder to its final name."""
        if not self.finished:
            # In order: the file is the same whether or not the work was interrupted.
            self.manifest["clips"] = dict(sorted(self.manifest["clips"].items(), key=lambda c: c[1]["position"]))
            self.write_manifest()
            self.location.replace(self.folder)

    def summary(self) -> dict[str, Any]:
        """A row of the final table."""
        clips = self.manifest["clips"]
        paths = [p for name, c in clips.items() for p in self.files(name, c["frames"], self.folder)]
        return {
            "split": str(self.folder),
            "clips": len(clips),
            "frames": sum(c["frames"] for c in clips.values()),
            "MB": sum(p.stat().st_size for p in paths) / 1e6,
            "made": "earlier; checked" if self.finished else "now",
        }


def level_file(level: str) -> Path:
    """The YAML file that ``--levels`` names.

    Raises:
        UserError: no such level.
    """
    path = Path(level) if level.endswith((".yml", ".yaml")) else LEVELS / f"{level}.yml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in LEVELS.glob("*.yml")))
        raise UserError(f"--levels {level}: no such level; known: {known}; or name a YAML file")
    return path


def read_steps(path: Path) -> tuple[Spec, ...]:
    """The checked steps of the single dataset in a YAML file, ``data.NAME.degradation``.

    Raises:
        UserError: no such list, more than one, or wrong options.
    """
    source = read_yaml(path)
    data = source.data.get("data")
    datasets = data if isinstance(data, dict) else {}
    found = [name for name, d in datasets.items() if isinstance(d, dict) and d.get("degradation")]
    if len(found) != 1:
        raise UserError(f"{path}: expected one list of steps at data.NAME.degradation, found {len(found)}")
    return validated(source.part(("data", found[0], "degradation")), STEPS.validate_python, str(path))


def sha256(parts: Iterable[bytes]) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part)
    return sha.hexdigest()
