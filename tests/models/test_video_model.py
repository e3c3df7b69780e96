"""Stage III's ablations."""

import pytest
import torch
from models.test_kalman_model import ZeroFlow, net

from keep.losses.pixel import L1
from keep.losses.temporal import Temporal
from keep.models import video_model
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


class Counted(ZeroFlow):
    """No motion, and the number of pairs of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def forward(self, current: torch.Tensor, previous: torch.Tensor) -> torch.Tensor:
        self.calls.append(len(current))
        return super().forward(current, previous)


@pytest.mark.parametrize(
    ("shared", "options", "own", "truth"),
    [
        (True, {}, [3 * 4], None),  # input, and ground truth in both directions
        (True, {"per_frame": True}, [2 * 4], None),
        (False, {}, [4], [2 * 4]),
        (False, {"per_frame": True}, [], [2 * 4]),
    ],
)
def test_a_step_calls_each_flow_estimator_once(shared, options, own, truth) -> None:
    flow = None if shared else Counted()
    network = net()
    network.flownet = Counted()
    model = VideoModel(network, L1(), flow, Temporal(weight=0.5), **options)
    batch = {"gt": torch.rand(2, 3, 3, 32, 32) * 2 - 1, "lq": torch.rand(2, 3, 3, 8, 8) * 2 - 1}
    list(model.losses(batch, 0))
    assert network.flownet.calls == own
    assert (None if flow is None else flow.calls) == truth


def test_a_long_step_calls_it_for_as_many_pairs_as_fit(monkeypatch) -> None:
    monkeypatch.setattr(video_model, "PIXELS_AT_ONCE", 5 * 32 * 32)
    flow = Counted()
    a, b = torch.rand(12, 3, 32, 32), torch.rand(12, 3, 32, 32)
    assert video_model.estimate(flow, a, b).shape == (12, 2, 32, 32)
    assert flow.calls == [5, 5, 2]


def test_flows_of_one_batch_belong_to_their_clips() -> None:
    class Difference(torch.nn.Module):
        def forward(self, current: torch.Tensor, previous: torch.Tensor) -> torch.Tensor:
            return (current - previous)[:, :2]

    network = net()
    network.flownet = Difference()
    model = VideoModel(network, L1(), None, Temporal())
    torch.manual_seed(0)
    lq, y = torch.rand(2, 3, 3, 32, 32), torch.rand(2, 3, 3, 32, 32)
    own, truth = model._flows(lq, y)
    assert own is not None
    assert truth is not None
    torch.testing.assert_close(own, (lq[:, 1:] - lq[:, :-1])[:, :, :2])
    torch.testing.assert_close(truth[0], (y[:, 1:] - y[:, :-1])[:, :, :2])
    assert truth[1].shape == (2, 2, 1, 32, 32)
