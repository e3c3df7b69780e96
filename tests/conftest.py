"""Shared fixtures: device and dtype, small networks, a moving clip on disk, tiny options for it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_runs
import torch
from networks import by_rule
from precision import DTYPES

from keep.archs.keep import KEEP
from keep.data.video_io import write_video
from keep.flow.gmflow import GMFlow
from keep.utils.devices import pick_device
from keep.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT / "../shared/data"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("keep")
    group.addoption("--device", default="cpu", help="where networks run: cpu (default), cuda, cuda:N or all")
    group.addoption("--dtype", default="float32", choices=[*DTYPES, "all"], help="what they compute in")


def pytest_configure(config: pytest.Config) -> None:
    name = str(config.getoption("--device"))
    try:
        pick_device("auto" if name == "all" else name)
    except UserError as error:
        raise pytest.UsageError(f"--{error}") from None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once for each device and dtype of the command line, if it uses these fixtures."""
    if "device" in metafunc.fixturenames:
        name = metafunc.config.getoption("--device")
        every = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
        names = [mark_gpu(n) for n in (every if name == "all" else [name])]
        metafunc.parametrize("device", names, indirect=True, scope="session")
    if "dtype" in metafunc.fixturenames:
        name = metafunc.config.getoption("--dtype")
        metafunc.parametrize("dtype", [*DTYPES] if name == "all" else [name], indirect=True, scope="session")


def mark_gpu(name: Any) -> Any:
    """A device as a parameter; a CUDA device has the mark ``gpu``."""
    return pytest.param(name, marks=pytest.mark.gpu) if str(name).startswith("cuda") else name


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """Where the networks and tensors of a test belong (``--device``)."""
    picked = pick_device(request.param)
    if picked.type == "cuda":  # expected numbers are those of exact float32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return picked


@pytest.fixture(scope="session")
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """What the networks of a test compute in (``--dtype``); see precision.py."""
    return DTYPES[request.param]


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
def public(device: torch.device) -> dict[str, torch.Tensor]:
    """Inputs of the network ``small``, and the outputs of the authors' implementation."""
    with np.load(ROOT / "tests/data/public_small.npz") as arrays:
        return {k: torch.from_numpy(arrays[k]).to(device) for k in arrays.files}


@pytest.fixture(scope="session")
def small(device: torch.device) -> KEEP:
    return by_rule(flow=GMFlow()).to(device)


@pytest.fixture
def tiny(clips: Path, tmp_path: Path):
    """(stage number, *overrides) → (options file, overrides) of a run of 4 steps on 32×32 frames."""

    def options(stage: int, *more: str) -> tuple[Path, list[str]]:
        return tiny_runs.options(stage, clips, tmp_path / "experiments", *more)

    return options
