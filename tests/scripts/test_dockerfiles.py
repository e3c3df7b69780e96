"""Properties of the container files, which are not built here."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = ["Dockerfile", "Dockerfile.cuda"]


@pytest.mark.parametrize("name", FILES)
def test_base_images_are_pinned(name):
    images = re.findall(r"^FROM (\S+)", (ROOT / name).read_text(), re.M)
    assert len(images) == 2
    assert all(re.search(r":\d+\.\d+\.\d+-", image) for image in images)


@pytest.mark.parametrize("name", FILES)
def test_last_user_is_not_root(name):
    text = (ROOT / name).read_text()
    assert re.findall(r"^USER (\S+)", text, re.M) == ["10001"]
    assert text.index("\nUSER 10001") > text.rindex("\nRUN ")


@pytest.mark.parametrize("name", FILES)
def test_torch_is_the_tested_version(name):
    text = (ROOT / name).read_text()
    pins = dict(re.findall(r"^(torch|torchvision)==(\S+)", (ROOT / "requirements.txt").read_text(), re.M))
    assert f"ARG TORCH={pins['torch']}\n" in text
    assert f"ARG TORCHVISION={pins['torchvision']}\n" in text
    assert ("/whl/cu" in text) == (name == "Dockerfile.cuda")


def test_the_context_holds_what_the_wheel_needs():
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert {"keep", "options", "pyproject.toml", "README.md", "LICENSE"} <= set(kept)
    assert all((ROOT / name).exists() for name in kept)
