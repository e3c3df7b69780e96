import pytest
import torch

from keep.config.registry import LOSSES
from keep.losses import pixel


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (1, 2, 3, 4, 4), (7,)])
def test_values(shape):
    target = torch.zeros(shape)
    output = target + 0.5
    assert pixel.L1()(output, target) == pytest.approx(0.5)
    assert pixel.MSE()(output, target) == pytest.approx(0.25)
    assert pixel.Charbonnier(eps=1.2)(output, target) == pytest.approx(1.3)


def test_charbonnier_has_a_gradient_at_zero():
    x = torch.zeros(3, requires_grad=True)
    pixel.Charbonnier()(x, torch.zeros(3)).backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.zeros(3))


def test_the_weight_is_kept_and_not_applied():
    loss = LOSSES.spec({"type": "L1", "weight": 0.01}).build()
    assert loss.weight == 0.01
    assert loss(torch.ones(2), torch.zeros(2)) == 1
