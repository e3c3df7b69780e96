"""Training by regression: what the network gets, what trains and when, windows, refusals."""

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from keep.archs.discriminators import PatchGAN, TemporalPatchGAN
from keep.degradation.resize import upsample
from keep.losses.gan import GAN
from keep.losses.pixel import L1, Charbonnier
from keep.models.clip_nets import window_around
from keep.models.regression_model import RegressionModel
from keep.utils.errors import UserError


class Enlarging(nn.Module):
    """Each frame and the one before it, enlarged four times; ``aligner`` stands for a flow network."""

    scale = 4

    def __init__(self) -> None:
        super().__init__()
        self.aligner, self.main = nn.Conv2d(6, 3, 3, padding=1), nn.Conv2d(3, 48, 3, padding=1)
        self.seen: torch.Size | None = None

    def forward(self, lq: torch.Tensor) -> torch.Tensor:
        self.seen = lq.shape
        pairs = torch.cat([lq, lq.roll(1, dims=1)], dim=2).flatten(0, 1)
        return F.pixel_shuffle(self.main(self.aligner(pairs)), 4).unflatten(0, lq.shape[:2])


class Window(nn.Module):
    """The middle frame of three, as large as the input: their mean, times a weight."""

    window = 3

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, lq: torch.Tensor) -> torch.Tensor:
        assert lq.shape[1] == 3
        return self.factor * lq.mean(1)


def batch(frames: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = {"gt": 64, "lq": 16}
    return {k: torch.rand(2, frames, 3, s, s, generator=generator) * 2 - 1 for k, s in sizes.items()}


def backward(model: RegressionModel, step: int) -> dict[str, dict[str, float]]:
    """One step's terms, by optimizer, after their backward passes."""
    found = {}
    model.zero_grad()
    for name, terms in model.losses(batch(), step):
        torch.stack([*terms.values()]).sum().backward()
        found[name] = {k: v.item() for k, v in terms.items()}
    return found


def test_the_input_is_upsampled_by_what_the_network_does_not_enlarge() -> None:
    torch.manual_seed(0)
    net = Enlarging()
    model = RegressionModel(net, L1())
    assert model.restore(batch()["lq"]).shape == (2, 3, 3, 64, 64)
    assert net.seen == (2, 3, 3, 16, 16)
    same_size = RegressionModel(nn.Identity(), L1())
    assert torch.equal(same_size.restore(batch()["lq"]), upsample(batch()["lq"], 4))
    with pytest.raises(UserError, match=r"model\.scale: 2, but Enlarging enlarges its input 4 times"):
        RegressionModel(net, L1(), scale=2)


def test_the_loss_is_the_charbonnier_distance_to_the_truth() -> None:
    torch.manual_seed(0)
    model = RegressionModel(Enlarging(), Charbonnier(weight=2.0, eps=1e-6))
    expected = (model.restore(batch()["lq"]) - batch()["gt"]).abs().mean().item()
    terms = backward(model, 0)
    assert terms.keys() == {"net"}
    assert terms["net"] == {"pixel": pytest.approx(2 * expected, rel=1e-4)}
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.net.parameters())


def test_a_part_waits_for_its_step() -> None:
    torch.manual_seed(0)
    model = RegressionModel(Enlarging(), L1(), part_start={"aligner": 3})
    assert model.phases() == {"start": 0, "aligner": 3}
    assert model.unused_parameters
    for step in (2, 3):
        loss = backward(model, step)["net"]["pixel"]
        assert (model.net.aligner.weight.grad is None) is (step < 3)
        assert model.net.main.weight.grad is not None
        assert model.net.aligner.weight.requires_grad
        assert loss == pytest.approx(backward(model, 9)["net"]["pixel"])  # it acts all the same
    with pytest.raises(UserError, match=r"model\.part_start: alinger: no such part of the network trains.*aligner"):
        RegressionModel(Enlarging(), L1(), part_start={"alinger": 3})


def test_frozen_parts_do_not_train() -> None:
    torch.manual_seed(0)
    model = RegressionModel(Enlarging(), L1(), frozen=("main",))
    backward(model, 0)
    assert {k.split(".")[0] for k, p in model.net.named_parameters() if p.grad is not None} == {"aligner"}
    assert len(model.parameter_groups()["net"]) == 2
    with pytest.raises(UserError, match=r"model\.frozen: tail: no such part of the network trains.*main"):
        RegressionModel(Enlarging(), L1(), frozen=("tail",))


@pytest.mark.parametrize("critic", [TemporalPatchGAN(channels=4), PatchGAN(channels=4, layers=2, norm="none")])
def test_discriminators_of_clips_and_of_images(critic: nn.Module) -> None:
    torch.manual_seed(0)
    model = RegressionModel(Enlarging(), L1(), discriminator=critic, gan=GAN(kind="vanilla"), gan_start=5)
    assert model.phases() == {"start": 0, "adversarial": 5}
    assert backward(model, 4).keys() == {"net"}
    terms = backward(model, 5)
    assert terms["net"].keys() == {"pixel", "gan"}
    assert terms["discriminator"].keys() == {"d"}
    with pytest.raises(UserError, match="go together"):
        RegressionModel(Enlarging(), L1(), discriminator=critic)


def test_a_window_trains_its_middle_frame_and_slides_over_a_clip() -> None:
    model = RegressionModel(Window(), L1())
    assert model.min_frames == 3
    lq, y = upsample(batch()["lq"], 4), batch()["gt"]
    expected = (lq.mean(1) - y[:, 1]).abs().mean().item()
    assert backward(model, 0)["net"]["pixel"] == pytest.approx(expected, rel=1e-5)
    restored = model.restore(batch(5)["lq"])
    frames = upsample(batch(5)["lq"], 4)
    assert restored.shape == frames.shape
    for t in range(5):
        assert torch.allclose(restored[:, t], frames[:, window_around(t, 5, 3)].mean(1), atol=1e-6)


def test_windows_at_the_ends_take_frames_from_their_other_side() -> None:
    expected = {0: [4, 3, 0, 1, 2], 1: [4, 0, 1, 2, 3], 3: [1, 2, 3, 4, 5], 6: [4, 5, 6, 3, 2]}
    assert {t: window_around(t, 7, 5) for t in expected} == expected
    assert window_around(0, 1, 3) == [0, 0, 0]
