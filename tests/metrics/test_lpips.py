from pathlib import Path

import numpy as np
import pytest
import torch

from keep.config.registry import METRICS
from keep.metrics.lpips import LPIPS
from keep.utils import downloads
from keep.utils.errors import UserError

SQUEEZE = Path(__file__).resolve().parents[2] / "../shared/data/weights/squeezenet1_1.pth"


@pytest.fixture(scope="module")
def squeeze():
    if not SQUEEZE.is_file():
        pytest.skip("squeezenet1_1.pth is not here")
    return METRICS.spec({"type": "LPIPS", "net": "squeeze", "weights": SQUEEZE}).build()


def test_one_value_a_frame(squeeze):
    rng = np.random.default_rng(0)
    target = torch.from_numpy(rng.integers(0, 256, (9, 3, 48, 40), dtype=np.uint8))
    output = target.clone()
    output[4] = 255 - target[4]
    values = squeeze(output, target)
    assert values.shape == (9,)
    assert values.dtype == np.float64
    assert values[4] > 0.1
    np.testing.assert_array_equal(np.delete(values, 4), 0)
    one = squeeze.distance(output[4:5].float() / 127.5 - 1, target[4:5].float() / 127.5 - 1)
    assert values[4] == pytest.approx(one.item(), rel=1e-5)


def test_more_noise_is_further(squeeze):
    rng = np.random.default_rng(0)
    target = np.full((3, 3, 64, 64), 128.0) + 40 * np.sin(np.arange(64) / 5)
    output = target + rng.normal(0, 1, target.shape) * np.array([2, 10, 40])[:, None, None, None]
    values = squeeze(*(torch.from_numpy(x.clip(0, 255).round().astype(np.uint8)) for x in (output, target)))
    assert values[0] < values[1] < values[2]


def test_the_name_says_the_network(squeeze):
    assert squeeze.name == "LPIPS-squeeze"
    assert not squeeze.higher_is_better


def test_small_frames(squeeze):
    tiny = torch.zeros(1, 3, 31, 64, dtype=torch.uint8)
    with pytest.raises(UserError, match="32×32"):
        squeeze(tiny, tiny)
    edge = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    assert squeeze(edge, edge) == 0


def test_a_missing_backbone_stops(monkeypatch, tmp_path):
    def urlopen(url, timeout):
        raise OSError("no network")

    monkeypatch.setattr(downloads.urllib.request, "urlopen", urlopen)
    monkeypatch.setenv("KEEP_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError, match=r"alexnet-owt-7be5be79\.pth"):
        LPIPS()
