"""Build sdist and wheel, install the wheel in a fresh environment, and use it outside of any checkout.

    python -m scripts.check_wheel                # about two minutes on two CPU cores; no network
    python -m scripts.check_wheel --keep dist    # also leave both files in dist/
    python -m scripts.check_wheel --extras       # also let pip find versions of all extras together; needs its index

The fresh environment sees the packages of the present one through a .pth file, so nothing is downloaded. --extras
installs nothing; packages that are present are not downloaded.
"""  # fmt: skip

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from keep.config.cli import Parser, run
from keep.data.video_io import probe, write_video
from keep.utils.errors import UserError
from keep.utils.version import __version__
from scripts.drawn_vfhq import draw_vfhq

ROOT = Path(__file__).resolve().parents[1]
SIDE, FRAMES = 96, 8
STEPS = 2
"""Optimizer steps of each stage."""
FEW = [f"train.iters={STEPS}", "log.interval=1", "data.workers=0"]
SPLITS = ("mild", "medium", "heavy")


def main(argv: Sequence[str] | None = None) -> None:
    assert __doc__
    p = Parser(prog="scripts.check_wheel", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    p.add_argument("--keep", type=Path, metavar="FOLDER", help="copy sdist and wheel to this folder")
    p.add_argument("--extras", action="store_true", help="check that all extras can be installed together")
    args: argparse.Namespace = p.parse_args(argv)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="keep_wheel_") as folder:
        work = Path(folder)
        wheel = build(work)
        if args.keep:
            shutil.copytree(wheel.parent, args.keep, dirs_exist_ok=True)
        if args.extras:
            resolve(wheel)
        use(install(wheel, work / "venv"), work / "elsewhere")
    print(f"{wheel.name}: built, installed and used in {time.perf_counter() - start:.0f} s")


def build(work: Path) -> Path:
    """The wheel made from the sdist, after checks of both."""
    dist, direct = work / "dist", work / "direct"
    # A copy, so that an old build/ or egg-info of the checkout adds nothing, and none is left there.
    source = work / "source"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "*.tmp")
    for name in ("keep", "options"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command(work, [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(dist), str(source)])
    command(work, [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(direct), str(source)])
    (sdist,), (wheel,), (other,) = dist.glob("*.tar.gz"), dist.glob("*.whl"), direct.glob("*.whl")
    command(work, [sys.executable, "-m", "twine", "check", "--strict", str(sdist), str(wheel)])
    if not wheel.name.endswith(f"-{__version__}-py3-none-any.whl"):
        raise UserError(f"{wheel.name}: expected a pure wheel of version {__version__}")
    if content(wheel) != content(other):
        different = sorted({name for name, _ in content(wheel).items() ^ content(other).items()})
        raise UserError(f"the wheels of the sdist and of the checkout differ: {', '.join(different[:5])}")
    return wheel


def content(wheel: Path) -> dict[str, bytes]:
    """File → bytes."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def install(wheel: Path, folder: Path) -> Path:
    """The ``bin`` folder of a fresh environment with the wheel; it sees the packages of the present environment."""
    command(folder.parent, [sys.executable, "-m", "venv", str(folder)])
    python = folder / "bin/python"
    command(folder.parent, [str(python), "-m", "pip", "install", "-q", "--no-deps", "--no-index", str(wheel)])
    (packages,) = folder.glob("lib/python*/site-packages")
    # A path in a .pth file is searched last, and .pth files in it are not read: an editable install stays out.
    (packages / "present.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    return python.parent


def resolve(wheel: Path) -> None:
    """Let pip find versions of all extras together."""
    (metadata,) = (text for name, text in content(wheel).items() if name.endswith(".dist-info/METADATA"))
    extras = ",".join(re.findall(r"^Provides-Extra: (\S+)$", metadata.decode(), re.MULTILINE))
    command(wheel.parent, [sys.executable, "-m", "pip", "install", "-q", "--dry-run", f"{wheel}[{extras}]"])


def use(programs: Path, folder: Path) -> None:
    """What a new user does: restore, make data, train the three stages, test."""
    folder.mkdir()
    draw_vfhq(folder / "drawn", clips=1, frames=FRAMES, side=SIDE)
    (clip,) = (folder / "drawn/train").iterdir()
    frames = [np.asarray(Image.open(path)) for path in sorted(clip.glob("*.png"))]
    write_video(folder / "old.mp4", frames, fps=8, codec="libx264")

    check = f"import keep, sys; sys.exit(keep.__version__ != '{__version__}' or sys.prefix not in keep.__file__)"
    command(folder, [str(programs / "python"), "-c", check])
    command(folder, [str(programs / "keep-weights"), "publish", "nano", "my_model", "--half"])
    command(folder, [str(programs / "keep-restore"), "old.mp4", "-o", "new.mp4", "--aligned", "-w", "my_model"])
    if (frames := probe(folder / "new.mp4").frames) != FRAMES:
        raise UserError(f"new.mp4 has {frames} frames, not {FRAMES}")

    command(folder, [str(programs / "keep-data"), "pack", "drawn/train", "clips.zip", "--size", str(SIDE)])
    data = ["data.train.type=PackedClips", "data.train.root=clips.zip"]
    for stage in (1, 2, 3):
        train = [str(programs / "keep-train"), "-opt", f"tiny/stage{stage}.yml"]
        command(folder, [*train, *settings([*data, *FEW])])

    splits = [str(programs / "keep-data"), "splits", "drawn/train", "splits", "--size", str(SIDE), "--levels", "heavy"]
    command(folder, splits)
    clips = [f"data.{split}.{key}" for split in SPLITS for key in ("type=FrameFolders", "root=drawn/train")]
    command(folder, [str(programs / "keep-test"), "-opt", "options/tiny/test.yml", *settings([*clips, "save.clips=1"])])
    for name in ("report.html", "table.md"):
        if not (folder / "demo_out/results/test" / name).is_file():
            raise UserError(f"keep-test wrote no {name}")


def settings(assignments: Sequence[str]) -> list[str]:
    """``--set`` for each."""
    return [word for assignment in assignments for word in ("--set", assignment)]


def command(folder: Path, words: Sequence[str]) -> None:
    """Run a program in ``folder``, without this checkout on its path; print its name and time.

    Raises:
        UserError: it fails; its output is printed before.
    """
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    start = time.perf_counter()
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    shown = " ".join([Path(words[0]).name, *words[1:]])
    print(f"{time.perf_counter() - start:6.1f} s  {shown[:120]}", flush=True)
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
        raise UserError(f"exit status {done.returncode}: {shown}")


if __name__ == "__main__":
    sys.exit(run(main))
