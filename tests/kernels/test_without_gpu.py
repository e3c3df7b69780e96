"""What can be known of the kernels without a GPU.

Their numbers, by Triton's interpreter; that they compile for GPUs; that torch.compile sees what they write. Each in a
process of its own: Triton chooses when it is imported.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("triton")


def python(*args: str, **environment: str) -> str:
    """Output of a Python process in the repository's root; it must succeed."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests/kernels")])
    env = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"} | environment
    done = subprocess.run([sys.executable, *args], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout


def test_numbers_in_the_interpreter() -> None:
    options = ["-q", "-p", "no:cacheprovider", "-m", "gpu", "--device", "cpu"]
    report = python("-m", "pytest", *options, "tests/kernels/test_group_norm.py", TRITON_INTERPRET="1")
    passed = int(report.split(" passed")[0].split()[-1])
    assert passed >= 25, report


def on_gpu(*args: str, folder: Path) -> list[str]:
    return python("-m", "as_on_gpu", *args, TRITON_CACHE_DIR=str(folder), TRITON_INTERPRET="0").splitlines()


@pytest.mark.parametrize(
    "capability", ["90", *(pytest.param(c, marks=pytest.mark.slow) for c in ("75", "80", "100", "120"))]
)
def test_kernels_compile_for(capability: str, tmp_path: Path) -> None:
    assert on_gpu("compile", capability, folder=tmp_path) == ["8"]


def test_compile_sees_which_tensors_the_kernels_write(tmp_path: Path) -> None:
    assert on_gpu("written", "8", "130", folder=tmp_path) == [
        "y mean rstd", "dx dbias dweight",  # a small image
        "means squares", "mean rstd", "y", "plain scaled", "dbias dweight group_plain group_scaled", "dx",
    ]  # fmt: skip
