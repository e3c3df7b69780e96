"""The ComfyUI node against a stub of its host."""

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from keep.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from keep.data.video_io import probe, read_video, write_video


class CancelledError(Exception):
    """Stands for the host's InterruptProcessingException."""


@pytest.fixture
def node():
    return NODE_CLASS_MAPPINGS["KeepRestoreVideo"]()


@pytest.fixture
def clip(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (6, 64, 64, 3), np.uint8)
    write_video(tmp_path / "in.mp4", frames, 25)
    return tmp_path / "in.mp4"


@pytest.fixture
def host(monkeypatch):
    """The modules of the host; ``host.seen`` lists what its progress bar was told, ``host.stop_after`` cancels."""
    comfy: Any = ModuleType("comfy")
    utils: Any = ModuleType("comfy.utils")
    management: Any = ModuleType("comfy.model_management")
    comfy.seen, comfy.stop_after = [], 100

    class ProgressBar:
        def __init__(self, total: int) -> None:
            pass

        def update_absolute(self, value: int, total: int | None = None) -> None:
            comfy.seen.append((value, total))

    def throw() -> None:
        if len(comfy.seen) >= comfy.stop_after:
            raise CancelledError

    utils.ProgressBar, management.throw_exception_if_processing_interrupted = ProgressBar, throw
    for module in (comfy, utils, management):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return comfy


def run(node: Any, clip: Any, name: str = "out.mp4", **inputs: Any) -> Any:
    given = {"weights": "nano", "aligned": True, "device": "cpu"} | inputs
    return getattr(node, node.FUNCTION)(video=str(clip), output=str(clip.parent / name), **given)


def test_interface(node):
    assert NODE_CLASS_MAPPINGS.keys() == NODE_DISPLAY_NAME_MAPPINGS.keys()
    inputs = node.INPUT_TYPES()
    assert list(inputs["required"]) == ["video", "output"]
    assert set(inputs["optional"]) == {"weights", "fidelity", "auto", "aligned", "overwrite", "device"}
    assert node.RETURN_TYPES == ("STRING", "STRING")
    assert node.OUTPUT_NODE
    assert node.CATEGORY


def test_restores_with_progress(node, clip, host):
    path, report = run(node, clip)
    assert probe(path).frames == 6
    assert "6 frames" in report
    assert host.seen[-1] == (6, 6)


def test_works_without_the_hosts_modules(node, clip):
    path, _ = run(node, clip)
    assert probe(path).frames == 6


@pytest.mark.parametrize("frames", [0, 4])
def test_cancel_leaves_nothing(node, clip, host, frames):
    host.stop_after = frames
    with pytest.raises(CancelledError):
        run(node, clip)
    assert len(host.seen) == frames
    assert [file.name for file in clip.parent.iterdir()] == ["in.mp4"]


def test_works_in_the_hosts_inference_mode(node, clip):
    with torch.inference_mode():
        inside = run(node, clip)[0]
    outside = run(node, clip, "outside.mp4")[0]
    np.testing.assert_array_equal(read_video(inside), read_video(outside))


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("out.txt", {}, "names no video"),
        ("in.mp4", {"overwrite": True}, "in.mp4"),
        ("out.mp4", {"fidelity": 2.0}, "--fidelity"),
        ("out.mp4", {"weights": "absent.pth"}, "absent.pth"),
        ("out.mp4", {"device": "abacus"}, "abacus"),
    ],
)
def test_bad_input_is_one_line(node, clip, name, inputs, message):
    before = clip.read_bytes()
    with pytest.raises(RuntimeError, match=message) as error:
        run(node, clip, name, **inputs)
    assert "\n" not in str(error.value)
    assert [file.name for file in clip.parent.iterdir()] == ["in.mp4"]
    assert clip.read_bytes() == before


def test_missing_video(node, tmp_path):
    with pytest.raises(RuntimeError, match=r"absent\.mp4 is not a file"):
        run(node, tmp_path / "absent.mp4")


def test_existing_output_needs_overwrite(node, clip):
    (clip.parent / "out.mp4").write_bytes(b"old")
    with pytest.raises(RuntimeError, match="exists already"):
        run(node, clip)
    assert probe(run(node, clip, overwrite=True)[0]).frames == 6
