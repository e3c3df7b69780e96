from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from keep.config.registry import FLOWS
from keep.flow.raft import RAFT
from keep.utils.errors import UserError

WEIGHTS = Path(__file__).resolve().parents[2] / "../shared/data/weights/raft_small_torchvision.pth"


@pytest.fixture(scope="module")
def raft():
    if not WEIGHTS.is_file():
        pytest.skip("raft_small_torchvision.pth is not here")
    return FLOWS.spec({"type": "raft", "size": "small", "weights": WEIGHTS}).build()


@pytest.mark.parametrize(("height", "width"), [(128, 128), (130, 164), (64, 64)])
def test_known_shift(raft, height, width):
    noise = np.random.default_rng(0).normal(size=(height + 40, width + 40, 3)).astype(np.float32)
    texture = cv2.GaussianBlur(noise, (0, 0), 3)
    frame = torch.from_numpy(texture / (3 * texture.std())).clamp(-1, 1).permute(2, 0, 1)[None]
    previous = frame[..., 20 : 20 + height, 20 : 20 + width]
    current = frame[..., 23 : 23 + height, 15 : 15 + width]
    flow = raft(current, previous)
    assert flow.shape == (1, 2, height, width)
    error = (flow - torch.tensor([-5.0, 3.0]).view(1, 2, 1, 1)).norm(dim=1)[..., 12:-12, 12:-12].mean()
    assert error < 0.5


def test_frozen_and_always_in_evaluation_mode(raft):
    raft.train()
    assert not any(module.training for module in raft.modules())
    assert not any(p.requires_grad for p in raft.parameters())


def test_building_leaves_the_random_stream_alone(raft):
    state = torch.get_rng_state()
    RAFT("small", WEIGHTS)
    assert torch.equal(state, torch.get_rng_state())


def test_wrong_weights(tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*nowhere\.pth"):
        RAFT("small", tmp_path / "nowhere.pth")
    path = tmp_path / "other.pth"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="another network"):
        RAFT("small", path)
    path.write_text("not a checkpoint")
    with pytest.raises(UserError, match="is not a checkpoint"):
        RAFT("small", path)
