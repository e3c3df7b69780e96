import pytest
import torch
from precision import ATOL

from keep.config.registry import LOSSES
from keep.losses import pixel


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (1, 2, 3, 4, 4), (7,)])
def test_values(shape, device, dtype):
    target = torch.zeros(shape, device=device, dtype=dtype)
    output = target + 0.5
    for loss, value in ((pixel.L1(), 0.5), (pixel.MSE(), 0.25), (pixel.Charbonnier(eps=1.2), 1.3)):
        assert loss(output, target).item() == pytest.approx(value, abs=ATOL[dtype])


def test_charbonnier_has_a_gradient_at_zero(device, dtype):
    x = torch.zeros(3, device=device, dtype=dtype, requires_grad=True)
    pixel.Charbonnier()(x, torch.zeros_like(x)).backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_the_weight_is_kept_and_not_applied():
    loss = LOSSES.spec({"type": "L1", "weight": 0.01}).build()
    assert loss.weight == 0.01
    assert loss(torch.ones(2), torch.zeros(2)) == 1
