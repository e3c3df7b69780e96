"""Files of ``keep.export``: ONNX Runtime and OpenVINO restore as PyTorch does; the command; what is refused."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exported_networks import lively
from networks import clip

from keep import export as door
from keep.data.video_io import read_video, write_video
from keep.flow.dis import DIS
from keep.flow.gmflow import GMFlow
from keep.inference.exported import ExportedNetwork, Inductor, OnnxRuntime, OpenVINO, export
from keep.inference.exported.check import difference
from keep.inference.weights import save_safetensors
from keep.restore import main as restore
from keep.utils.errors import UserError

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def net():
    net = lively(temporal="causal", flow=DIS("fast"))
    net.arch = {"type": "KEEP", "flow": {"type": "dis", "preset": "fast"}}  # type: ignore[assignment]
    return net


@pytest.fixture(scope="module")
def file(net, tmp_path_factory):
    """Written by the command; tracing takes several seconds, so once."""
    path = tmp_path_factory.mktemp("exported") / "new/tiny.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(door, "load_keep", lambda *_: net)
        patch.setattr(door, "find", lambda _: Path("tiny.pth"))
        assert door.main(["-w", "tiny", "-o", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def moving():
    return clip(10, batch=3)


def test_onnx_runtime_restores_as_pytorch_does(net, file, moving):
    found = difference(net, OnnxRuntime(file, threads=1), *moving)
    assert found.output < 1e-4
    assert found.gain < 1e-5
    assert found.codes == 0


def test_so_does_openvino(net, file, moving):
    pytest.importorskip("openvino")
    found = difference(net, OpenVINO(file, threads=1), *moving)
    assert found.output < 1e-3
    assert found.gain < 1e-4
    assert found.codes == 0


@pytest.mark.slow
def test_a_clip_network_with_its_flow_inside(tmp_path):
    net = lively(temporal="clip", flow=GMFlow(random_weights=True))
    export(net, tmp_path / "clip.onnx")
    backend = OnnxRuntime(tmp_path / "clip.onnx", threads=1)
    assert not backend.manifest.takes_flow
    assert difference(net, backend, clip(10, batch=1)[0]).output < 1e-3


@pytest.mark.slow
def test_float16_stores_half_the_bytes(net, file, moving, tmp_path):
    path = tmp_path / "half.onnx"
    export(net, path, "float16")
    assert path.stat().st_size < 0.8 * file.stat().st_size
    lq, flows = moving
    assert difference(net, OnnxRuntime(path, threads=1), lq[:, :1], flows[:, :0]).output < 0.05


def test_the_file_describes_itself(file):
    manifest = OnnxRuntime(file, threads=1).manifest
    assert (manifest.image_size, manifest.dtype, manifest.weights) == (32, "float32", "tiny.pth")
    assert manifest.flow == {"type": "dis", "preset": "fast"}
    given = [value.name for value in onnx.load(file).graph.input]
    assert given == [port.name for port in manifest.inputs]
    batch = onnx.load(file).graph.input[0].type.tensor_type.shape.dim[0]
    assert batch.dim_param  # a name, not a number: the batch is dynamic


def test_restore_with_a_backend(file, tmp_path, capsys):
    y, x = np.mgrid[:32, :32]
    frames = np.stack([np.stack([5 * x + 2 * t, 5 * y, 3 * (x + y)], axis=-1).astype(np.uint8) for t in range(5)])
    write_video(tmp_path / "face.mkv", frames, fps=25, codec="ffv1")
    source, out = str(tmp_path / "face.mkv"), tmp_path / "out.mkv"
    command = [source, "-o", str(out), "--aligned", "--codec", "ffv1", "--device", "cpu"]
    assert restore([*command, "-w", str(file), "--backend", "onnx"]) == 0
    expected = ExportedNetwork(OnnxRuntime(file, threads=1)).begin()(frames[:, None])[:, 0]
    assert np.abs(read_video(out).astype(int) - expected).max() <= 2  # FFV1 stores RGB as the writer converts it
    assert restore([*command, "-w", str(file), "--overwrite"]) == 2
    assert "add --backend onnx" in capsys.readouterr().err


def test_weights_are_exported_once_into_the_cache(net, tmp_path, monkeypatch):
    from keep.inference.exported import choose

    monkeypatch.setenv("KEEP_HOME", str(tmp_path / "home"))
    weights = tmp_path / "tiny.safetensors"
    save_safetensors(net, weights, {"type": "KEEP"})
    calls = []
    monkeypatch.setattr(choose, "load_keep", lambda path: path)
    monkeypatch.setattr(choose, "export", lambda net, path, dtype, weights: (calls.append(weights), path.touch()))
    for _ in range(2):
        path = choose._kept(weights, torch.float32)
    assert calls == ["tiny.safetensors"]
    assert path.parent == tmp_path / "home/exported"
    assert choose._kept(weights, torch.float16) != path


def test_the_command_leaves_one_file_and_replaces_none(file, capsys):
    assert [path.name for path in file.parent.iterdir()] == ["tiny.onnx"]
    assert door.main(["-w", "lite", "-o", str(file)]) == 2
    assert "exists already: name another output, or replace it with --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "keep.bin"], "the suffix must be one of .onnx, .pt2"),
        (["-o", "keep.onnx", "--dtype", "bf16"], "an export is float32 or float16"),
        (["-o", "keep.onnx", "--flow", "inside"], "DIS, a function of OpenCV"),
        (["-o", "keep.onnx", "-w", "none.pth"], "there is no checkpoint none.pth"),
    ],
)
def test_a_wrong_command_is_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert door.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("package", "build"), [("onnxruntime", OnnxRuntime), ("openvino", OpenVINO)])
def test_a_missing_package_is_named(package, build, file, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"pip install keep-vfsr\["):
        build(file)


@pytest.mark.parametrize("build", [OnnxRuntime, Inductor])
def test_other_files_are_refused(build, tmp_path):
    (tmp_path / "other").write_bytes(b"no model")
    with pytest.raises(UserError, match="cannot load it"):
        build(tmp_path / "other")


def test_a_graph_of_others_is_refused(tmp_path):
    path = tmp_path / "other.onnx"
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "other", [x], [y])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), path)
    with pytest.raises(UserError, match=r"not exported by keep\.export"):
        OnnxRuntime(path)


@pytest.mark.slow
def test_aot_inductor_restores_as_pytorch_does(net, moving, tmp_path):
    export(net, tmp_path / "tiny.pt2")
    assert difference(net, Inductor(tmp_path / "tiny.pt2"), *moving).output < 1e-4
