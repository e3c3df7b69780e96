import cv2
import numpy as np
import pytest
import torch
from basicsr_archs import arch

from keep.config.registry import FLOWS
from keep.flow.spynet import SpyNet, from_public
from keep.utils.errors import UserError


@pytest.fixture(scope="module")
def spynet(shared):
    return FLOWS.spec({"type": "spynet", "weights": shared("weights/spynet_sintel_final_from_t7.pth")}).build()


@pytest.mark.parametrize(("height", "width"), [(70, 90), (64, 64)])
def test_equals_basicsr(height, width):
    theirs, ours = arch("spynet_arch", "SpyNet"), SpyNet()
    ours.load_state_dict(from_public(theirs.state_dict()))
    frames = torch.rand(2, 2, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        expected, found = theirs(*((f + 1) / 2 for f in frames)), ours(*frames)
    assert expected.abs().max() > 0.5
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert sum(p.numel() for p in ours.parameters()) == 1_440_300


@pytest.mark.parametrize(("height", "width"), [(128, 128), (130, 164)])
def test_known_shift(spynet, height, width):
    noise = np.random.default_rng(0).normal(size=(height + 40, width + 40, 3)).astype(np.float32)
    texture = cv2.GaussianBlur(noise, (0, 0), 3)
    frame = torch.from_numpy(texture / (3 * texture.std())).clamp(-1, 1).permute(2, 0, 1)[None]
    previous = frame[..., 20 : 20 + height, 20 : 20 + width]
    current = frame[..., 23 : 23 + height, 15 : 15 + width]
    flow = spynet(current, previous)
    assert flow.shape == (1, 2, height, width)
    error = (flow - torch.tensor([-5.0, 3.0]).view(1, 2, 1, 1)).norm(dim=1)[..., 12:-12, 12:-12].mean()
    assert error < 0.5


def test_as_an_estimator_it_is_frozen(spynet):
    spynet.train()
    assert not any(m.training for m in spynet.modules())
    assert not any(p.requires_grad for p in spynet.parameters())
    assert spynet.name == "SPyNet"
    assert len(spynet.files) == 1


def test_one_pixel_high_frames_have_finite_flow(spynet):
    assert spynet(torch.rand(1, 3, 1, 1), torch.rand(1, 3, 1, 1)).isfinite().all()


def test_the_weights_of_another_network(tmp_path):
    torch.save({"params": {"conv.weight": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="another network"):
        SpyNet(tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"none\.pth"):
        SpyNet(tmp_path / "none.pth")
