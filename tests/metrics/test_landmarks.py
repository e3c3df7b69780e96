import numpy as np
import torch

from keep.config.registry import METRICS
from keep.metrics import Clip
from keep.metrics.landmarks import AKD


def test_akd_by_hand(table, reds, eyes):
    # Two landmarks, 3-4-5 apart and not at all: 2.5 pixels of an 8×8 frame are 160 of a 512×512 one.
    akd = AKD(table({1: [[0, 0], [1, 1]], 2: [[3, 4], [1, 1]]}), eyes)
    values = akd(reds(2, 1, 2), reds(1, 1, 2))
    np.testing.assert_allclose(values, [2.5 * 64, 0, 0])
    assert (akd.name, akd.higher_is_better) == ("AKD (table)", False)


def test_frames_without_a_face(table, reds, eyes):
    akd = AKD(table({0: [[0, 0]], 1: [[0, 0]], 2: [[0, 1]]}), eyes)
    values = akd(reds(2, 2), reds(1, 0))
    np.testing.assert_allclose(values, [64, np.nan])
    assert akd.missing(values) == 1


def test_network_and_truth_are_shared(table, reds, eyes):
    network = table({1: [[0, 0]], 2: [[0, 1]]})
    akd, target = AKD(network, eyes), Clip(reds(1, 1))
    akd(Clip(reds(2, 2)), target)
    akd(Clip(reds(1, 1)), target)
    assert (network.calls, eyes.calls) == (3, 2)


def test_a_real_network(shared):
    """Moving the picture by (3, 4) pixels moves the landmarks by 5."""
    akd = METRICS.spec({
        "type": "AKD", "faces": "own",
        "network": {"type": "PFLD", "weights": shared("weights/pfld68_300w_ext.onnx")},
        "detector": {"type": "YuNet", "weights": shared("weights/yunet_n_320_320.onnx")},
    }).build()  # fmt: skip
    from keep.data.video_io import read_video

    frame = read_video(shared("dev_video/LivePortrait__d0.mp4"), 0, 1)
    frames = torch.from_numpy(frame).permute(0, 3, 1, 2).contiguous()
    assert frames.shape[-2:] == (512, 512)
    moved = frames.roll((4, 3), dims=(2, 3))
    assert akd(frames, frames) == 0
    assert 3.5 < akd(moved, frames)[0] < 6.5
