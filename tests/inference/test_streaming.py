"""Streaming: equal to the forward pass of the complete clip, constant memory, no jumps at window borders."""

import gc
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import PATCHES, by_rule, clip, tiny
from rule import normal, upsample
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor

from keep.archs.keep import KEEP
from keep.baselines.keep_restorer import KEEPRestorer
from keep.flow.gmflow import GMFlow
from keep.inference.streaming import Streamer, stream
from keep.utils.errors import UserError
from keep.utils.weight_files import save

DEV_VIDEO = Path(__file__).resolve().parents[2] / "../shared/data/dev_video/LivePortrait__d0.mp4"


def lively(**options) -> KEEP:
    """A tiny network whose CFA is not the identity, so that its memory matters."""
    model = tiny(**options).eval()
    with torch.no_grad():
        for scale in model.cfa:
            model.get_parameter(f"cfa.{scale}.norm1.weight").fill_(0.5)
    return model


def streamed(model: KEEP, lq: torch.Tensor, flows: torch.Tensor | None = None, **options) -> tuple[torch.Tensor, ...]:
    """Output (B, T, 3, S, S) and gains (B, T, 1, h, w)."""
    frames = list(stream(model, lq.unbind(1), None if flows is None else flows.unbind(1), **options))
    return torch.stack([f.output for f in frames], 1), torch.stack([f.gain for f in frames], 1)


@pytest.fixture(scope="module")
def complete(device):
    model, (lq, flows) = lively(temporal="causal").to(device), clip(10, batch=2, device=device)
    with torch.no_grad():
        return model, lq, flows, model(lq, flows, return_states=True)


@pytest.mark.parametrize("window", [1, 3, 8])
def test_a_causal_network_streams_the_same_as_the_complete_clip(complete, window):
    model, lq, flows, expected = complete
    output, gains = streamed(model, lq, flows, window=window)
    torch.testing.assert_close(gains, expected.gains, atol=1e-6, rtol=0)
    torch.testing.assert_close(output, expected.output, atol=1e-4, rtol=0)


def test_so_it_does_on_patches(device):
    model, (lq, flows) = lively(temporal="causal", **PATCHES).to(device), clip(5, size=64, device=device)
    with torch.no_grad():
        expected = model(lq, flows)
    torch.testing.assert_close(streamed(model, lq, flows, window=2)[0], expected, atol=1e-4, rtol=0)


def test_so_it_does_with_its_own_flow(device):
    model = lively(temporal="causal", flow=GMFlow(random_weights=True)).to(device)
    lq, _ = clip(10, device=device)
    with torch.no_grad():
        expected = model(lq)
    for window in (1, 3, 8):
        torch.testing.assert_close(streamed(model, lq, window=window)[0], expected, atol=1e-3, rtol=0)


def test_a_clip_network_does_not_depend_on_the_window(device):
    model, (lq, flows) = lively(temporal="clip").to(device), clip(10, batch=2, device=device)
    output, gains = streamed(model, lq, flows, window=1, context=3)
    for window in (3, 8):
        again, gains_again = streamed(model, lq, flows, window=window, context=3)
        torch.testing.assert_close(gains_again, gains, atol=1e-6, rtol=0)
        torch.testing.assert_close(again, output, atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_gain_of_a_clip_network_is_the_last_of_the_clip_that_ends_there(device):
    model, (lq, flows) = lively(temporal="clip").to(device), clip(6, device=device)
    z, _ = model.observe(lq)
    gains = streamed(model, lq, flows, window=4, context=2)[1]
    for t, frames in {0: [0], 1: [0, 1], 2: [0, 1, 2], 3: [0, 1, 2, 3], 4: [0, 2, 3, 4], 5: [0, 3, 4, 5]}.items():
        torch.testing.assert_close(gains[:, t], model.kalman_filter(z[:, frames])[:, -1], atol=1e-6, rtol=0)


def moving_texture(frames: int, size: int) -> torch.Tensor:
    """Smooth noise that moves by half a pixel a frame: (1, T, 3, size, size) in [-1, 1]."""
    image = F.interpolate(normal("texture", (1, 3, size // 2, size // 2)), scale_factor=4.0, mode="bicubic").tanh()
    return torch.stack([F.avg_pool2d(image.roll((t, -t), (2, 3)), 2) for t in range(frames)], dim=1)


def real_or_made_frames(count: int) -> tuple[torch.Tensor, str]:
    """LQ frames (1, T, 3, 16, 16) in [-1, 1] of a real face if available, else of a moving texture."""
    path = DEV_VIDEO
    if not path.is_file():
        feat = importlib.util.find_spec("feat")
        path = Path(feat.origin).parent / "tests/data/single_face.mp4" if feat and feat.origin else path
    if not path.is_file():
        return moving_texture(count, 16), "a moving texture"
    from keep.data.frames import to_float
    from keep.data.images import square_resize
    from keep.data.video_io import read_video

    frames = read_video(path, 0, count)
    side = min(frames.shape[1:3])
    small = square_resize(np.ascontiguousarray(frames[:, :side, -side:]), 16)
    return to_float(torch.from_numpy(small).permute(0, 3, 1, 2))[None], path.name


@torch.no_grad()
def test_nothing_jumps_at_window_borders():
    """With the rule's weights the output itself jumps everywhere (its recurrence is chaotic), so gains are compared."""
    model = by_rule()
    lq, name = real_or_made_frames(30)
    lq = upsample(lq)
    flows = torch.zeros(1, lq.shape[1] - 1, 2, 64, 64)

    def jumps(x: torch.Tensor, every: int) -> tuple[float, float]:
        change = (x[0, 2:] - x[0, 1:-1]).abs().flatten(1).mean(1)  # from t = 2: the first gain is of one frame
        border = torch.arange(2, lq.shape[1]) % every == 0
        return change[border].mean().item(), change[~border].mean().item()

    output, gains = streamed(model, lq, flows, window=8)
    at, between = jumps(gains, 8)
    first = model(lq[:, :20], flows[:, :19], return_states=True)
    second = model(lq[:, 20:], flows[:, 20:], return_states=True)
    reset_at, reset_between = jumps(torch.cat([first.gains, second.gains], 1), 20)
    out_at, out_between = jumps(output, 8)
    print(
        f"{name}: change of the gains at window borders {at:.4f}, elsewhere {between:.4f}; "
        f"reset every 20 frames: {reset_at:.4f}, {reset_between:.4f}; of the output {out_at:.3f}, {out_between:.3f}"
    )
    assert at < 1.3 * between
    assert out_at < 1.1 * out_between
    assert reset_at > 1.5 * reset_between


def live_bytes() -> int:
    """Bytes of all tensors alive, each storage once."""
    storages = {o.untyped_storage().data_ptr(): o.untyped_storage().nbytes() for o in gc.get_objects() if is_tensor(o)}
    return sum(storages.values())


def is_tensor(o: object) -> bool:
    """Whether ``o`` is a tensor with memory: traces of other tests may have left some without."""
    return issubclass(type(o), torch.Tensor) and not issubclass(type(o), FakeTensor | FunctionalTensor)


@pytest.mark.parametrize("temporal", ["causal", "clip"])
def test_memory_does_not_grow_with_the_clip(temporal):
    model, peak = lively(temporal=temporal), {}
    gc.collect()
    for length in (20, 200):
        frames = (torch.full((1, 3, 32, 32), t / length) for t in range(length))
        flows = (torch.zeros(1, 2, 32, 32) for _ in range(length - 1))
        before = live_bytes()
        restored = enumerate(stream(model, frames, flows, window=4, context=3))
        peak[length] = max(live_bytes() - before for t, _ in restored if t in (4, 8, length - 4, length - 1))
    assert 0 < peak[200] <= 1.1 * peak[20]


def test_frames_are_read_at_most_a_window_ahead():
    read = []

    def frames():
        for t in range(20):
            read.append(t)
            yield torch.zeros(1, 3, 32, 32)

    restored = stream(tiny().eval(), frames(), (torch.zeros(1, 2, 32, 32) for _ in range(19)), window=4)
    assert not read
    for t, _ in enumerate(restored):
        assert len(read) <= t + 4


def test_wrong_frames_are_reported():
    model = tiny().eval()
    with pytest.raises(UserError, match="no flow estimator"):
        list(stream(model, torch.zeros(3, 1, 3, 32, 32)))
    with pytest.raises(UserError, match=r"got \(1, 1, 3, 16, 16\)"):
        Streamer(model).push(torch.zeros(1, 1, 3, 16, 16))
    with pytest.raises(UserError, match=r"must be \(1, 1, 2, 32, 32\)"):
        Streamer(model).push(torch.zeros(1, 2, 3, 32, 32), torch.zeros(1, 2, 2, 32, 32))
    with pytest.raises(UserError, match="at least 1"):
        list(stream(model, [], window=0))
    assert list(stream(model, [])) == []


def test_a_clip_is_not_continued_with_another_batch():
    streamer = Streamer(tiny().eval())
    streamer.push(torch.zeros(2, 1, 3, 32, 32))
    with pytest.raises(UserError, match="started with a batch of 2"):
        streamer.push(torch.zeros(1, 1, 3, 32, 32), torch.zeros(1, 1, 2, 32, 32))


@torch.no_grad()
def test_the_restorer_of_keep_test_streams(tmp_path):
    model = lively(temporal="causal", flow=GMFlow(random_weights=True))
    save(tmp_path / "net.pth", model.state_dict())
    lq = moving_texture(5, 8)[0]
    restorer = KEEPRestorer(
        tmp_path / "net.pth", net=tiny(temporal="causal", flow=GMFlow(random_weights=True)), window=2
    )
    output = restorer(lq)
    expected = model(upsample(lq[None]), return_states=True)
    torch.testing.assert_close(output, expected.output[0], atol=1e-3, rtol=0)
    assert restorer.gains is not None
    torch.testing.assert_close(restorer.gains, expected.gains[0, :, 0], atol=1e-6, rtol=0)
    assert restorer.describe() == f"KEEP (bare) {tmp_path / 'net.pth'}"
