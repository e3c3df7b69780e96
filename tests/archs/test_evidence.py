"""The evidence: its values where they are known, and that measuring it changes nothing."""

import math

import pytest
import torch
import torch.nn.functional as F
from networks import clip, tiny

from keep.archs.evidence import EVIDENCE, SIGMAS, flow_failure, luma, measure, reduce, to_blocks, whitening
from keep.config.registry import FLOWS
from keep.inference.fast import accelerate
from keep.inference.streaming import Streamer, stream

S, H, C, K = 64, 8, 6, 16
NAMES = list(EVIDENCE)


def smooth(seed: int, n: int = 1) -> torch.Tensor:
    """Frames (n, 3, S, S) with structure at all scales."""
    g = torch.Generator().manual_seed(seed)
    parts = [
        F.interpolate(torch.rand(n, 3, k, k, generator=g) * 2 - 1, (S, S), mode="bicubic") / len(NAMES)
        for k in (4, 8, 16, 32, 64)
    ]
    return torch.stack(parts).sum(0).clamp(-1, 1)


def measured(**given: torch.Tensor) -> dict[str, torch.Tensor]:
    """Maps (1, S/8, S/8) by name, of a first frame where nothing else is given."""
    frame, z = smooth(0), torch.randn(1, C, H, H, generator=torch.Generator().manual_seed(1))
    inputs = {
        "given": frame, "made": frame, "logits": torch.zeros(1, H * H, K), "z_obs": z, "z_prior": z,
        "gain": torch.ones(1, 1, H, H), "warped": given.get("made", frame), "white": torch.eye(C),
        "failure": torch.zeros(1, 1, S // 4, S // 4), "size": torch.ones(1),
    } | given  # fmt: skip
    maps = measure(**(inputs | {name: luma(inputs[name]) for name in ("given", "made", "warped")}))
    assert maps.shape == (1, len(NAMES), S // 8, S // 8)
    assert maps.dtype == torch.float32
    return dict(zip(NAMES, maps[0], strict=True))


def test_a_code_that_is_certain_and_one_that_is_not():
    logits = torch.zeros(1, H * H, K)
    logits[0, 0, 3] = 50
    maps = measured(logits=logits)
    torch.testing.assert_close(maps["entropy"][0, 0], torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(maps["top1"][0, 0], torch.tensor(1.0))
    torch.testing.assert_close(maps["entropy"][0, 1:], torch.ones(H - 1))
    torch.testing.assert_close(maps["top1"][1:], torch.full((H - 1, H), 1 / K))


def test_the_innovation_and_its_whitened_size():
    z, step = torch.zeros(1, C, H, H), torch.zeros(1, C, H, H)
    step[:, 0], step[:, 1] = 3, 4
    white = torch.eye(C)
    white[0, 0] = 10
    maps = measured(z_obs=z, z_prior=step, white=white)
    torch.testing.assert_close(maps["innovation"], torch.full((H, H), math.sqrt(25 / C)))
    torch.testing.assert_close(maps["whitened"], torch.full((H, H), math.sqrt((30**2 + 4**2) / C)))


def test_whitened_differences_of_codes_have_size_one():
    g = torch.Generator().manual_seed(0)
    codes = torch.randn(400, C, generator=g) @ torch.randn(C, C, generator=g)
    a, b = codes[torch.randperm(400, generator=g)], codes[torch.randperm(400, generator=g)]
    sizes = ((a - b) @ whitening(codes).T).square().mean(1)
    assert sizes.mean().item() == pytest.approx(1, abs=0.1)
    assert torch.isfinite(whitening(torch.zeros(K, C))).all()  # a codebook that has not trained


@pytest.mark.parametrize("sigma", SIGMAS[2:7])
def test_the_residual_is_small_and_the_blur_found_where_a_blur_explains_the_input(sigma):
    output = smooth(3)
    small = F.avg_pool2d(output, 4)
    x = torch.arange(-6, 7, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = kernel / kernel.sum()
    pad = F.pad(small, (6, 6, 6, 6), mode="reflect")
    rows = F.conv2d(pad, kernel.view(1, 1, 1, -1).expand(3, 1, 1, -1), groups=3)
    blurred = F.conv2d(rows, kernel.view(1, 1, -1, 1).expand(3, 1, -1, 1), groups=3)
    lq = blurred.repeat_interleave(4, -1).repeat_interleave(4, -2)
    maps = measured(given=lq, made=output)
    torch.testing.assert_close(maps["blur"], torch.full((H, H), 4 * sigma))
    assert maps["residual"].max() < 1e-5
    lq[..., :8, :8] += 0.5
    assert measured(given=lq, made=output)["residual"][0, 0] > 0.2


def test_flow_that_finds_the_same_thing_again_and_flow_that_does_not():
    frame = luma(smooth(4))
    moved = frame.roll(8, -1)  # to the right: the flow to the frame before is -8
    flow = torch.zeros(1, 1, 2, S, S)
    flow[:, :, 0] = -8
    given = torch.stack([frame, moved], 1)
    right, none = (flow_failure(given, f, 2) for f in (flow, torch.zeros_like(flow)))
    assert right.shape == (1, 2, 1, S // 4, S // 4)
    assert (right[:, 0] == 0).all()
    assert right[:, 1, ..., 2:].max() < 1e-5
    torch.testing.assert_close(none[:, 1], reduce((moved - frame), 4).abs())
    assert none[:, 1].max() > 0.02
    torch.testing.assert_close(flow_failure(given, flow, 1), right[:, 1:])  # the first of the two was seen before
    assert (flow_failure(given, flow[:, :0], 2) == 0).all()


def test_means_of_squares_of_pixels():
    x = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(2))
    for factor in (1, 2, 3, 4):
        torch.testing.assert_close(reduce(x, factor), F.avg_pool2d(x, factor))


def test_motion_change_detail_and_size():
    output = smooth(5)
    maps = measured(made=output, warped=output + 0.25, given=output - 0.25, size=torch.tensor([0.5]))
    torch.testing.assert_close(maps["motion"], torch.full((H, H), 0.25))
    torch.testing.assert_close(maps["change"], torch.full((H, H), 0.25))
    torch.testing.assert_close(maps["detail_in"], maps["detail_out"])
    torch.testing.assert_close(maps["size"], torch.full((H, H), 0.5))
    flat = measured(made=torch.full_like(output, 0.5), warped=output)
    assert flat["detail_out"].abs().max() < 1e-6
    assert flat["contrast"].max() < 1e-3
    torch.testing.assert_close(flat["brightness"], torch.full((H, H), 0.5))


def test_coarse_and_odd_maps_come_to_the_blocks():
    x = torch.arange(4.0).view(1, 1, 2, 2)
    assert torch.equal(to_blocks(x, 4), x.repeat_interleave(2, -1).repeat_interleave(2, -2))
    assert to_blocks(torch.ones(1, 1, 12, 12), 8).shape == (1, 1, 8, 8)


@torch.no_grad()
def test_measuring_changes_nothing_and_costs_nothing_where_it_is_not_asked_for(device):
    model, (lq, flows) = tiny(temporal="causal").eval().to(device), clip(4, batch=2, device=device)
    plain = model(lq, flows, return_states=True)
    seen = model(lq, flows, return_states=True, evidence=True)
    assert plain.evidence is None
    assert torch.equal(plain.output, seen.output)
    assert torch.equal(plain.logits, seen.logits)
    assert seen.evidence.shape == (2, 4, len(NAMES), 4, 4)
    first = dict(zip(NAMES, seen.evidence[:, 0].unbind(1), strict=True))
    assert (first["gain"] == 1).all()
    assert all((first[name] == 0).all() for name in ("innovation", "whitened", "motion", "failure"))
    assert all(frame.evidence is None for frame in Streamer(model).push(lq, flows))


@torch.no_grad()
@pytest.mark.parametrize("window", [1, 3])
def test_streamed_evidence_is_that_of_the_complete_clip(window, device):
    model, (lq, _) = (
        tiny(temporal="causal", flow=FLOWS.spec("dis").build()).eval().to(device),
        clip(5, batch=2, device=device),
    )
    complete = model(lq, return_states=True, evidence=True)
    frames = list(stream(model, lq.unbind(1), window=window, evidence=True))
    evidence = torch.stack([frame.evidence for frame in frames if frame.evidence is not None], 1)
    torch.testing.assert_close(evidence, complete.evidence, atol=1e-4, rtol=1e-4)
    assert complete.evidence[:, 1:, NAMES.index("failure")].max() > 0


@torch.no_grad()
def test_a_faster_copy_measures_the_same(device):
    model, (lq, flows) = tiny(temporal="causal").eval().to(device), clip(3, device=device)
    slow, fast = (net(lq, flows, return_states=True, evidence=True).evidence for net in (model, accelerate(model)))
    torch.testing.assert_close(fast, slow, atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_the_size_of_the_face_is_passed_on(device):
    model, (lq, flows) = tiny(temporal="causal").eval().to(device), clip(2, device=device)
    sizes = torch.tensor([[0.25, 0.5]], device=device)
    frames = Streamer(model, evidence=True).push(lq, flows, sizes)
    assert [f.evidence[0, NAMES.index("size")].unique().tolist() for f in frames if f.evidence is not None] == [
        [0.25], [0.5],
    ]  # fmt: skip
