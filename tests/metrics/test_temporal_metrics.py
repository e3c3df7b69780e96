import numpy as np
import pytest
import torch

from keep.config.registry import METRICS
from keep.metrics import Clip
from keep.metrics.lpips import LPIPS, distances, steps
from keep.metrics.temporal import TemporalLPIPS, WarpingError, flows, motion_boundary
from keep.utils.errors import UserError


class Shift(torch.nn.Module):
    """A flow that is known: everything moves by (dx, dy) pixels a frame."""

    name = "shift"

    def __init__(self, dx: float, dy: float) -> None:
        super().__init__()
        self.step, self.calls = torch.tensor([dx, dy]), 0

    def forward(self, current, previous):
        # Whoever asks for the flow of the other direction gets it: the later frame is brighter at the corner.
        self.calls += 1
        sign = torch.where(current[:, 0, 0, 0] > previous[:, 0, 0, 0], -1.0, 1.0)
        return (sign[:, None] * self.step)[..., None, None].expand(-1, -1, *current.shape[-2:])


def moving(dx: int, dy: int, frames: int = 3) -> torch.Tensor:
    """A texture that moves by (dx, dy) pixels a frame; the corner pixel counts the frames."""
    rng = np.random.default_rng(0)
    still = torch.from_numpy(rng.integers(0, 200, (3, 20, 24), dtype=np.uint8))
    clip = torch.stack([still.roll((t * dy, t * dx), dims=(1, 2)) for t in range(frames)])
    clip[:, 0, 0, 0] = torch.arange(frames)
    return clip


def test_motion_that_the_flow_explains_is_no_error():
    clip = moving(2, 1)
    values = WarpingError(Shift(2, 1))(clip, clip)
    assert np.isnan(values[0])
    # The counting corner is moved on to (2, 1), where it does not belong.
    assert (values[1:] < 0.004).all()
    assert WarpingError(Shift(0, 0))(clip, clip)[1] > 0.05


def test_error_by_hand():
    target = moving(2, 1)
    output = torch.full_like(target, 100)
    output[1] = 151  # 0.2 brighter
    output[2, 0] = 202
    output[2, 1:] = 151
    values = WarpingError(Shift(2, 1))(output, target)
    np.testing.assert_allclose(values, [np.nan, 0.04, 0.04 / 3], rtol=1e-5)


def test_pixels_that_come_from_outside_are_left_out():
    target = moving(2, 1)
    _, valid = flows(Clip(target), Shift(2, 1))[0]
    assert valid.dtype == torch.bool
    assert valid[1:, 2:].all()
    assert not valid[0].any()
    assert not valid[:, :2].any()
    output = torch.zeros_like(target)
    output[1:, :, 0], output[1:, :, :, :2] = 255, 255
    assert WarpingError(Shift(2, 1))(output, target)[1] == 0


def test_no_valid_pixel_is_no_value():
    target = moving(0, 0)
    values = WarpingError(Shift(100, 0))(target, target)
    assert np.isnan(values).all()


def test_motion_boundaries():
    flow = torch.zeros(1, 2, 6, 9)
    flow[:, 0, :, 5:] = 3
    edge = motion_boundary(flow)[0]
    assert edge[:, 4:6].all()
    assert edge.sum() == 12
    assert not motion_boundary(flow + torch.linspace(0, 0.1, 9))[0, :, :4].any()


def test_flow_is_estimated_once_for_all_restorers():
    flow, target = Shift(2, 1), Clip(moving(2, 1, frames=6))
    for brightness in (1, 2):
        WarpingError(flow)(Clip(target.frames + brightness), target)
    assert flow.calls == 4  # five pairs in two pieces, there and back


def test_names_and_refusals(shared):
    weights = shared("weights/raft_small_torchvision.pth")
    small = METRICS.spec(
        {"type": "WarpingError", "flow": {"type": "raft", "size": "small", "weights": weights}}
    ).build()
    assert small.name == "E_warp (RAFT-small)"
    assert METRICS.spec({"type": "WarpingError", "flow": "dis"}).build().name == "E_warp (DIS-medium)"
    with pytest.raises(UserError, match="raft or dis"):
        METRICS.spec({"type": "WarpingError", "flow": "GMFlow"}).build()


def test_flicker_is_seen_with_a_real_estimator():
    y, x = np.mgrid[:64, :64]
    texture = 120 + 60 * np.sin(x / 5) * np.cos(y / 7)
    clip = torch.from_numpy(np.stack([np.roll(texture, t, 1) for t in range(3)]).round().astype(np.uint8))
    clip = clip[:, None].repeat(1, 3, 1, 1)
    flicker = clip.clone()
    flicker[1] += 20
    metric = METRICS.spec({"type": "WarpingError", "flow": "dis"}).build()
    steady, unsteady = (metric.score(metric(output, clip)) for output in (clip, flicker))
    assert steady < 0.1 * unsteady
    assert unsteady == pytest.approx((20 / 255) ** 2, rel=0.2)


@pytest.fixture(scope="module")
def options(shared):
    return {"net": "squeeze", "weights": shared("weights/squeezenet1_1.pth")}


def test_temporal_lpips_by_the_package(options):
    metric, lpips = TemporalLPIPS(**options), LPIPS(**options)
    rng = np.random.default_rng(0)
    output, target = (torch.from_numpy(rng.integers(0, 256, (4, 3, 40, 48), dtype=np.uint8)) for _ in range(2))
    ours, theirs = (distances(lpips.distance, clip[1:], clip[:-1]) for clip in (output, target))
    np.testing.assert_allclose(metric(output, target), [np.nan, *np.abs(ours - theirs)], atol=1e-6)
    assert (metric.name, metric.first, metric.higher_is_better) == ("tLPIPS-squeeze", 1, False)
    assert np.isnan(metric.score(metric(output[:1], target[:1])))


def test_steps_do_not_depend_on_the_pieces(options, monkeypatch):
    network = LPIPS(**options).distance
    frames = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (5, 3, 40, 40), dtype=np.uint8))
    one_by_one = steps(network, frames)
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda self: True))  # pieces of eight
    np.testing.assert_allclose(steps(network, frames), one_by_one, rtol=1e-4)
