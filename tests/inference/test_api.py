"""The Python API: frames in, frames out."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from networks import TINY, tiny

import keep
from keep.data.frames import to_float, to_uint8
from keep.flow.gmflow import GMFlow
from keep.inference.api import Restorer, resize
from keep.inference.weights import save_safetensors
from keep.utils.errors import UserError


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_safetensors(tiny(temporal="causal", flow=GMFlow(random_weights=True)), path)
    return path


@pytest.fixture(scope="module")
def restorer(weights) -> Restorer:
    return keep.load_restorer(weights, device="cpu", window=2)


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([np.roll(rng.integers(0, 256, (8, 8, 3), np.uint8), t, axis=1) for t in range(5)])


@torch.no_grad()
def test_a_clip_gives_the_networks_frames(restorer, frames):
    lq = resize(to_float(torch.from_numpy(frames).permute(0, 3, 1, 2)), 32)
    expected = to_uint8(restorer.net(lq[None])[0]).permute(0, 2, 3, 1).numpy()
    restored = list(restorer.restore(frames))
    assert len(restored) == 5
    for frame, wanted in zip(restored, expected, strict=True):
        assert frame.shape == (32, 32, 3)
        assert frame.dtype == np.uint8
        np.testing.assert_allclose(frame.astype(int), wanted, atol=1)


def test_each_call_is_a_clip_of_its_own_and_an_iterator_is_the_same(restorer, frames):
    first = np.stack(list(restorer.restore(frames)))
    assert np.array_equal(np.stack(list(restorer.restore(iter(frames)))), first)


def test_frames_are_read_as_they_are_needed(restorer, frames):
    read = []

    def source():
        for frame in frames:
            read.append(1)
            yield frame

    restored = restorer.restore(source())
    assert not read
    next(restored)
    assert len(read) == 2


@pytest.mark.parametrize("side", [8, 20, 32, 50])
def test_any_square_size(restorer, side):
    (frame,) = restorer.restore(np.zeros((1, side, side, 3), np.uint8))
    assert frame.shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (np.zeros((8, 8, 3), np.uint8), r"a clip is an array \(T, H, H, 3\)"),
        (np.zeros((2, 8, 8, 3), np.float32), "frame 0: expected a uint8 RGB array; got float32"),
        (np.zeros((2, 8, 9, 3), np.uint8), r"square \(H, H, 3\); got shape \(8, 9, 3\)"),
        (np.zeros((2, 8, 8, 4), np.uint8), r"got shape \(8, 8, 4\)"),
        (["face.png"], "got str"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((9, 9, 3), np.uint8)], "frame 1: its shape"),
    ],
)
def test_wrong_frames(restorer, clip, message):
    with pytest.raises(UserError, match=message):
        list(restorer.restore(clip))


def test_no_frames(restorer):
    assert list(restorer.restore(np.zeros((0, 8, 8, 3), np.uint8))) == []


def test_bfloat16_keeps_the_filter_and_positions_of_the_flow_in_float32(weights, frames):
    restorer = keep.load_restorer(weights, "cpu", "bf16")
    assert restorer.net.get_parameter("lq_encoder.blocks.0.weight").dtype == torch.bfloat16
    assert restorer.net.get_parameter("flownet.backbone.conv1.weight").dtype == torch.bfloat16
    assert isinstance(restorer.net.flownet, GMFlow)
    for part in (restorer.net.kalman_filter, restorer.net.flownet.upsampler):
        assert {p.dtype for p in part.parameters()} == {torch.float32}
    assert np.stack(list(restorer.restore(frames))).std() > 0


@pytest.mark.parametrize(("has", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_takes_bfloat16_where_the_hardware_has_it(weights, monkeypatch, has, expected):
    monkeypatch.setattr("keep.utils.dtypes.has_bfloat16", lambda device: has)
    restorer = keep.load_restorer(weights, "cpu", "auto")
    assert restorer.net.get_parameter("lq_encoder.blocks.0.weight").dtype == expected


def test_wrong_options(weights):
    with pytest.raises(UserError, match="dtype: 'int8'"):
        keep.load_restorer(weights, dtype="int8")
    with pytest.raises(UserError, match="device: 'gpu'"):
        keep.load_restorer(weights, device="gpu")
    with pytest.raises(UserError, match="there is no checkpoint"):
        keep.load_restorer("nothing.pth")


def test_options_reach_the_network(weights, frames):
    net = {"type": "KEEP", **TINY, "temporal": "causal", "flow": {"type": "GMFlow"}}
    restorer = keep.load_restorer(weights, "cpu", net=net, flow="dis", fidelity=0.5, cft=False, cfa=False, context=2)
    assert type(restorer.net.flownet).__name__ == "DIS"
    assert restorer.options == {"window": 8, "context": 2, "w": 0.5, "use_cft": False, "use_cfa": False}


def test_importing_keep_is_light():
    code = "import sys, keep; sys.exit('torch' in sys.modules or not callable(keep.load_restorer))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    with pytest.raises(AttributeError):
        keep.load_restorers  # noqa: B018
