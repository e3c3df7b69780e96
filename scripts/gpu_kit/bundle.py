"""One folder to carry to a GPU machine without a network: code, wheels that it lacks, data and weights.

    make gpu-bundle                                          # build/gpu_bundle: code and wheels alone
    python -m scripts.gpu_kit.bundle build/gpu_bundle --file faces256.zip=datasets/faces256.zip \\
        --file squeezenet1_1.pth=weights/squeezenet1_1.pth
    bash build/gpu_bundle/run.sh --budget 480 --out RESULTS  # on the GPU machine

The wheels are of the versions installed here, for Linux on x86-64 and ``--python``. The defaults are what a machine
with PyTorch and the usual packages lacks; run.sh names what else is missing. A bundle over ``--most-mb`` is refused.
"""  # fmt: skip

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from keep.config import arguments
from keep.config.cli import Parser, run
from keep.inference.weights import DEFAULT, SHIPPED
from keep.utils.errors import UserError
from keep.utils.io import AtomicWrite
from scripts.gpu_kit.kit import ROOT

PACKAGES = ("av", "pydantic", "pydantic-core", "annotated-types", "typing-inspection", "lpips")
CODE = ("keep", "scripts", "options", "tests", "pyproject.toml")
MEDIA = (".npz", ".png", ".jpg", ".mp4", ".mkv")
"""Suffixes of the tests' files that stay here."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64",
             "manylinux1_x86_64")  # fmt: skip
MARK = "COMMIT"
"""File of a bundle with the commit of its code; a folder with it may be replaced."""


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    given = dict(named_file(text) for text in args.file)
    if args.out.exists() and not (args.out / MARK).is_file():
        raise UserError(f"{args.out} exists and is no bundle; name another folder")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with AtomicWrite(args.out) as folder:
        folder.mkdir()
        copy_code(folder)
        shutil.copyfile(Path(__file__).with_name("run.sh"), folder / "run.sh")
        (folder / "wheels").mkdir()
        if args.wheels:
            copy_wheels(args.wheels, folder / "wheels")
        else:
            download([*PACKAGES, *args.package], args.python, folder / "wheels")
        for target, source in given.items():
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / target)
        size = check_size(folder, args.most_mb)
        if args.out.exists():
            shutil.rmtree(args.out)
    print(f"{args.out}: {size:.1f} MB of {args.most_mb:g}. On the GPU machine:")
    print(f"bash {args.out.name}/run.sh --budget 480 --out RESULTS")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    assert __doc__
    p = Parser(
        prog="scripts.gpu_kit.bundle", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )  # fmt: skip
    p.add_argument("out", type=Path, help="folder to write; an older bundle there is replaced")
    p.add_argument("--file", action="append", default=[], metavar="FILE[=PLACE]", help="a file to take along, and its "
                   "place in the bundle (default: beside run.sh)")  # fmt: skip
    p.add_argument("--package", action="append", default=[], metavar="NAME", help="a further package that the GPU "
                   f"machine lacks; taken anyway: {', '.join(PACKAGES)}")  # fmt: skip
    p.add_argument("--python", default="3.12", help="Python of the GPU machine (3.12)")
    p.add_argument("--wheels", type=Path, help="take the wheels in this folder instead of downloading them")
    p.add_argument(
        "--most-mb",
        type=arguments.number(0, 1e6, above=True),
        default=60.0,
        help="largest size of the bundle in MB (60)",
    )
    return p.parse_args(argv)


def named_file(text: str) -> tuple[Path, Path]:
    """(place in the bundle, file) of ``FILE[=PLACE]``."""
    source, _, place = text.partition("=")
    path, target = Path(source), Path(place or Path(source).name)
    if not path.is_file():
        raise UserError(f"--file: there is no file {path}")
    if target.is_absolute() or ".." in target.parts:
        raise UserError(f"--file {text}: the place must be inside the bundle")
    return target, path


def copy_code(folder: Path) -> None:
    """Copy the tracked files of the code, as they are in the working tree.

    The tests' media stay here, and of the shipped weights all but the default.
    """
    stays = {f"keep/pretrained/{path.name}" for name, path in SHIPPED.items() if name != DEFAULT}
    for name in tracked(CODE):
        source, target = ROOT / name, folder / name
        if name in stays or (name.startswith("tests/") and source.suffix in MEDIA):
            continue
        if not (source.exists() or source.is_symlink()):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target, follow_symlinks=False)
    (folder / MARK).write_text(git("describe", "--always", "--dirty", "--abbrev=40") + "\n", encoding="utf-8")


def tracked(parts: Iterable[str]) -> list[str]:
    return git("ls-files", "--", *parts).splitlines()


def git(*words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = (getattr(error, "stderr", "") or str(error)).strip().partition("\n")[0]
        raise UserError(f"the bundle needs a git checkout: {reason}") from None
    return done.stdout.strip()


def copy_wheels(source: Path, target: Path) -> None:
    wheels = sorted(source.glob("*.whl"))
    if not wheels:
        raise UserError(f"--wheels: {source} holds no .whl file")
    for wheel in wheels:
        shutil.copyfile(wheel, target / wheel.name)


def download(packages: Sequence[str], python: str, target: Path) -> None:
    """Download the wheels of the versions that are installed here."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps"]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", python, "-d", str(target)]
    command += [word for name in PLATFORMS for word in ("--platform", name)]
    done = subprocess.run([*command, *map(pinned, packages)], capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()]
        raise UserError(f"pip could not download the wheels: {lines[-1]}")


def pinned(package: str) -> str:
    try:
        return f"{package}=={version(package)}"
    except PackageNotFoundError:
        return package


def check_size(folder: Path, most: float) -> float:
    """The size of a folder in MB; raises UserError, with the largest files, if it is more than ``most``."""
    sizes: Mapping[Path, int] = {p: p.lstat().st_size for p in folder.rglob("*") if p.is_file() or p.is_symlink()}
    total = sum(sizes.values()) / 1e6
    if total > most:
        largest = sorted(sizes, key=lambda p: -sizes[p])[:5]
        names = ", ".join(f"{p.relative_to(folder)} {sizes[p] / 1e6:.1f} MB" for p in largest)
        raise UserError(f"the bundle has {total:.1f} MB, more than {most:g}; the largest files: {names}")
    return total


if __name__ == "__main__":
    sys.exit(run(main))
