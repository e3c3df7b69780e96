"""What several test files share: a moving clip on disk, and the tiny options pointed at it."""

from pathlib import Path

import numpy as np
import pytest
import tiny_runs
import torch
from networks import by_rule

from keep.archs.keep import KEEP
from keep.data.video_io import write_video
from keep.flow.gmflow import GMFlow

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT / "../shared/data"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two clips, 12 frames of 40×40: a coloured disc that moves."""
    folder = tmp_path_factory.mktemp("clips")
    y, x = np.mgrid[:40, :40]
    for n, colour in enumerate([(220, 160, 120), (90, 120, 200)]):
        frames = np.zeros((12, 40, 40, 3), np.uint8)
        frames[:] = 40 + 2 * x[..., None]
        for t in range(12):
            frames[t][(y - 20) ** 2 + (x - 10 - t) ** 2 < 81] = colour
        write_video(folder / f"disc{n}.mkv", frames, fps=25, codec="ffv1")
    return folder


@pytest.fixture(scope="session")
def shared():
    """(path below the folder of shared data) → the file; skips where it is absent."""

    def find(name: str) -> Path:
        if not (SHARED / name).is_file():
            pytest.skip(f"{name} is not here")
        return SHARED / name

    return find


@pytest.fixture(scope="session")
def public() -> dict[str, torch.Tensor]:
    """What the authors' implementation gives for the network ``small``."""
    with np.load(ROOT / "tests/data/public_small.npz") as arrays:
        return {k: torch.from_numpy(arrays[k]) for k in arrays.files}


@pytest.fixture(scope="session")
def small() -> KEEP:
    return by_rule(flow=GMFlow())


@pytest.fixture
def tiny(clips: Path, tmp_path: Path):
    """(stage number, *overrides) → (options file, overrides) of a run of 4 steps on 32×32 frames."""

    def options(stage: int, *more: str) -> tuple[Path, list[str]]:
        return tiny_runs.options(stage, clips, tmp_path / "experiments", *more)

    return options
