"""Stage III's ablations."""

import pytest
import torch
from models.test_kalman_model import ZeroFlow, net

from keep.losses.pixel import L1
from keep.losses.temporal import Temporal
from keep.models.video_model import VideoModel
from keep.utils.errors import UserError


def test_the_ablation_without_memory_trains_cft_alone_on_first_frames() -> None:
    torch.manual_seed(0)
    model = VideoModel(net(), L1(), ZeroFlow(), Temporal(weight=0.5), per_frame=True)
    model.net.flownet = ZeroFlow()
    batch = {"gt": torch.rand(2, 3, 3, 32, 32) * 2 - 1, "lq": torch.rand(2, 3, 3, 8, 8) * 2 - 1}
    output = model.restore(batch["lq"])
    assert torch.allclose(output[:, 2:], model.restore(batch["lq"][:, 2:]), atol=1e-5)
    ((_, terms),) = list(model.losses(batch, 0))
    assert set(terms) == {"pixel", "temporal"}
    assert terms["pixel"].item() == torch.nn.functional.l1_loss(output, batch["gt"]).item()
    change = (output[:, 1:] - output[:, :-1]).abs().mean()
    assert abs(terms["temporal"].item() - 0.5 * change.item()) < 1e-5  # no flow: neighbours of the same clip
    torch.stack(list(terms.values())).sum().backward()
    trained = {k.split(".")[0] for k, p in model.net.named_parameters() if p.requires_grad}
    assert trained == {"cft"}
    assert all(p.grad is not None for p in model.net.cft.parameters())


@pytest.mark.parametrize(("off", "on"), [("cft", "cfa"), ("cfa", "cft")])
def test_a_part_that_is_off_neither_acts_nor_trains(off: str, on: str) -> None:
    torch.manual_seed(0)
    model = VideoModel(net(), L1(), ZeroFlow(), **{off: False})
    model.net.flownet = ZeroFlow()
    assert {k.split(".")[0] for k, p in model.net.named_parameters() if p.requires_grad} == {on}
    lq = torch.rand(1, 3, 3, 8, 8) * 2 - 1
    before = model.restore(lq)
    with torch.no_grad():
        for p in getattr(model.net, off).parameters():
            p.add_(1)
    assert torch.equal(model.restore(lq), before)
    with torch.no_grad():
        for p in getattr(model.net, on).parameters():
            p.add_(1)
    assert not torch.equal(model.restore(lq), before)


def test_something_must_train() -> None:
    with pytest.raises(UserError, match="there is nothing to train"):
        VideoModel(net(), L1(), ZeroFlow(), cft=False, per_frame=True)
