"""The shipped network as ONNX over a hundred frames of a real clip."""

from pathlib import Path

import pytest
import torch

from keep.data.frames import to_float
from keep.data.images import square_resize
from keep.data.video_io import read_video
from keep.degradation.resize import upsample
from keep.inference.exported import OnnxRuntime, OpenVINO, export
from keep.inference.exported.check import difference
from keep.inference.weights import load_keep

FOLDER = Path(__file__).resolve().parents[3] / "../../lite_data/val/all"
FRAMES = 100


def real_clip(side: int) -> torch.Tensor:
    """The first long enough clip, (T, 3, side, side) in [-1, 1], from a quarter of that size."""
    for path in sorted(FOLDER.glob("*.mp4")) if FOLDER.is_dir() else []:
        frames = read_video(path)[:FRAMES]
        if len(frames) == FRAMES:
            return upsample(to_float(torch.from_numpy(square_resize(frames, side // 4)).permute(0, 3, 1, 2))[None], 4)[
                0
            ]
    pytest.skip("no real clip of 100 frames is here")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnx", "openvino"])
@torch.no_grad()
def test_a_hundred_frames_agree(backend, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime" if backend == "onnx" else backend)
    net = load_keep("lite")
    lq = real_clip(net.image_size)[None]
    export(net, tmp_path / "lite.onnx")
    build = {"onnx": OnnxRuntime, "openvino": OpenVINO}[backend]
    found = difference(net, build(tmp_path / "lite.onnx", threads=1), lq, net.estimate_flows(lq))
    assert found.codes == 0
    assert found.output < 1e-3
