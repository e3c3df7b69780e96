import copy

import cv2
import numpy as np
import pytest
import torch

from keep.config.registry import FLOWS
from keep.flow.dis import DIS


def shifted_pair(size: int, dx: int, dy: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Current and previous (1, 3, size, size) cut from one texture, so that the flow current→previous is (dx, dy)."""
    noise = np.random.default_rng(0).normal(size=(size + 40, size + 40, 3)).astype(np.float32)
    texture = cv2.GaussianBlur(noise, (0, 0), 2)
    frame = torch.from_numpy(texture / (3 * texture.std())).clamp(-1, 1).permute(2, 0, 1)[None]
    previous = frame[..., 20 : 20 + size, 20 : 20 + size]
    current = frame[..., 20 + dy : 20 + dy + size, 20 + dx : 20 + dx + size]
    return current, previous


@pytest.mark.parametrize("preset", ["ultrafast", "fast", "medium"])
@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("shift", [(3, -2), (-5, 3)])
def test_known_shift(preset, size, shift):
    flow = DIS(preset)(*shifted_pair(size, *shift))
    assert flow.shape == (1, 2, size, size)
    assert flow.dtype == torch.float32
    error = (flow - torch.tensor(shift).view(1, 2, 1, 1)).norm(dim=1)[..., 8:-8, 8:-8].mean()
    assert error < 0.5


def test_frames_of_a_batch_do_not_mix():
    (c1, p1), (c2, p2) = shifted_pair(64, 2, 0), shifted_pair(64, 0, -3)
    flow = DIS()(torch.cat([c1, c2]), torch.cat([p1, p2]))
    torch.testing.assert_close(flow, torch.cat([DIS()(c1, p1), DIS()(c2, p2)]))


@pytest.mark.parametrize("size", [(8, 8), (17, 40), (270, 300)])
def test_any_size(size):
    frames = torch.rand(1, 3, *size) * 2 - 1
    flow = DIS()(frames, frames)
    assert flow.shape == (1, 2, *size)
    assert flow.abs().max() < 0.1


def test_is_a_registered_module_without_parameters_or_gradients():
    estimator = FLOWS.spec({"type": "dis", "preset": "fast"}).build()
    assert not list(estimator.parameters())
    frames = torch.rand(1, 3, 64, 64, requires_grad=True)
    assert not copy.deepcopy(estimator)(frames, frames).requires_grad
