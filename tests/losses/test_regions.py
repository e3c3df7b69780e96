import pytest
import torch

from keep.config.registry import LOSSES
from keep.faces.align import TEMPLATE_512
from keep.losses.pixel import L1
from keep.losses.regions import CENTRES, FaceRegions


def test_the_squares_are_where_an_aligned_face_has_eyes_and_mouth():
    left, right, _, mouth_left, mouth_right = TEMPLATE_512
    for centre, point in zip(CENTRES, (left, right, (mouth_left + mouth_right) / 2), strict=True):
        assert torch.tensor(centre) * 512 == pytest.approx(point, abs=0.5)
    frames = torch.zeros(2, 1, 3, 64, 64)
    frames[..., 30, 24] = 1  # an eye
    frames[..., 46, 32] = 2  # the mouth
    frames[..., 5, 5] = 9
    squares = FaceRegions(L1()).squares(frames)
    assert squares.shape == (6, 3, 16, 16)
    assert squares.amax((1, 2, 3)).tolist() == [1, 1, 0, 0, 2, 2]
    assert squares[0, 0, 8, 8] == squares[4, 0, 8, 8] / 2 == 1


def test_the_value_counts_only_the_squares(device, dtype):
    target = torch.zeros(1, 2, 3, 64, 64, device=device, dtype=dtype)
    output = target.clone()
    output[..., :20, :] = 1  # above the eyes
    loss = LOSSES.spec({"type": "FaceRegions", "pixel": {"type": "L1", "weight": 2.0}, "weight": 0.1}).build()
    assert loss(output, target) == 0
    output += 0.5
    output[..., :20, :] = 0
    assert loss(output, target).item() == pytest.approx(1.0)
    assert loss.weight == 0.1


def test_a_perceptual_loss_is_added_with_its_weight():
    class Fixed(torch.nn.Module):
        weight = 3.0

        def forward(self, a, b):
            assert a.shape == b.shape == (3, 3, 16, 16)
            return a.new_tensor(2.0)

    assert FaceRegions(L1(), Fixed())(torch.ones(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)) == 1 + 3 * 2
