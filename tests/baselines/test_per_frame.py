import pytest
import torch
from networks import TINY, tiny

from keep.baselines.keep_restorer import KEEPRestorer
from keep.baselines.per_frame import KEEPPerFrame
from keep.config.registry import BASELINES
from keep.inference.weights import save_safetensors


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    net = tiny(flow=None).eval()
    for parameter in net.cft.parameters():  # it begins as the identity
        torch.nn.init.normal_(parameter, std=0.2)
    save_safetensors(net, path, {"type": "KEEP", **TINY})
    return path


LQ = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_every_frame_is_a_clip_of_its_own(weights):
    per_frame, keep = KEEPPerFrame(weights, frames=2), KEEPRestorer(weights)
    expected = torch.cat([keep(frame) for frame in LQ.split(1)])
    found = per_frame(LQ)
    assert found.shape == (5, 3, 32, 32)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_no_frame_knows_of_another(weights):
    per_frame = KEEPPerFrame(weights)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(per_frame(LQ[order]), per_frame(LQ)[order], atol=1e-4, rtol=1e-3)


def test_options(weights):
    restorer = BASELINES.spec({"type": "KEEPPerFrame", "weights": weights, "cft": False}).build()
    assert not torch.allclose(restorer.to(torch.device("cpu"))(LQ), KEEPPerFrame(weights)(LQ), atol=1e-3)
    assert "frame by frame" in restorer.describe()
