"""Error models on disk, in the streamer and in the Python API."""

from pathlib import Path

import pytest
import torch
from networks import TINY, clip, tiny

import keep
from keep.archs.confidence import ConfidenceHead, blend
from keep.archs.evidence import EVIDENCE
from keep.inference.confidence import load_confidence, network_hash, path_of, save_confidence
from keep.inference.streaming import Streamer, stream
from keep.inference.weights import save_safetensors
from keep.utils.errors import UserError

ARCH = {"type": "KEEP", **TINY, "temporal": "causal", "flow": {"type": "dis"}}
HEAD = {"type": "ConfidenceHead", "width": 8, "layers": 2}


def head() -> ConfidenceHead:
    torch.manual_seed(0)
    return ConfidenceHead(width=8, layers=2).eval()


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_safetensors(tiny(temporal="causal"), path, ARCH)
    save_confidence(head(), HEAD, path_of(path), network_hash(path), {"clips": 3})
    return str(path)


def test_a_head_comes_back_as_it_was_written(weights):
    found = load_confidence(weights)
    assert all(
        torch.equal(a, b) for a, b in zip(found.state_dict().values(), head().state_dict().values(), strict=True)
    )


def test_the_head_of_other_weights_is_refused(weights, tmp_path):
    other = tmp_path / "other.safetensors"
    torch.manual_seed(9)
    net = tiny(temporal="causal")
    with torch.no_grad():
        net.codebook.embedding.weight.add_(1)
    save_safetensors(net, other, ARCH)
    with pytest.raises(UserError, match=r"no error model of these weights, other\.confidence\.safetensors beside them"):
        load_confidence(other)
    path_of(other).write_bytes(path_of(Path(weights)).read_bytes())
    with pytest.raises(UserError, match="was made for other weights"):
        load_confidence(other)
    path_of(other).write_bytes(other.read_bytes())
    with pytest.raises(UserError, match="not an error model"):
        load_confidence(other)


def test_a_head_of_other_maps_is_refused(weights, monkeypatch):
    monkeypatch.setitem(EVIDENCE, "failure", "something else")
    with pytest.raises(UserError, match="reads other evidence than this version measures; train it again"):
        load_confidence(weights)


@torch.no_grad()
def test_the_streamer_predicts_the_error_and_restores_the_same(device):
    model, (lq, flows) = tiny(temporal="causal").eval().to(device), clip(3, batch=2, device=device)
    plain = list(stream(model, lq.unbind(1), flows.unbind(1)))
    seen = list(stream(model, lq.unbind(1), flows.unbind(1), confidence=head().to(device)))
    for a, b in zip(plain, seen, strict=True):
        assert torch.equal(a.output, b.output)
        assert a.error is None
        assert b.error is not None
        assert b.error.shape == (2, 1, 4, 4)
        assert (b.error >= 0).all()


def test_blending_goes_back_to_the_input_where_the_confidence_is_low():
    output, lq = torch.ones(1, 3, 64, 64), -torch.ones(1, 3, 64, 64)
    confidence = torch.ones(1, 1, 8, 8)
    confidence[..., :, 4:] = 0.2
    assert blend(output, lq, confidence, 0.0) is output
    mixed = blend(output, lq, confidence, 0.6)
    assert (mixed[..., :16] == 1).all()
    assert (mixed[..., 48:] == -1).all()
    between = mixed[0, 0, 32]
    assert (between.diff() <= 0).all(), "no seam"
    torch.testing.assert_close(blend(output, lq, torch.full_like(confidence, 0.5), 0.6), torch.zeros_like(output))


@torch.no_grad()
def test_min_confidence_in_the_streamer_leaves_the_recurrence_alone(device):
    model, (lq, flows) = tiny(temporal="causal").eval().to(device), clip(3, device=device)
    model_head = head().to(device)
    plain = Streamer(model, confidence=model_head).push(lq, flows)
    for least in (0.3, 1.0):
        mixed = Streamer(model, confidence=model_head, min_confidence=least).push(lq, flows)
        for i, (a, b) in enumerate(zip(plain, mixed, strict=True)):
            assert a.bands is not None
            torch.testing.assert_close(b.output, blend(a.output, lq[:, i], a.bands.confidence(), least))
    with pytest.raises(UserError, match="min_confidence needs the error model"):
        Streamer(model, min_confidence=0.5)


def test_the_python_api(weights):
    restorer = keep.load_restorer(weights, "cpu", confidence=True)
    frames = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = list(restorer.stream(frames.numpy()))
    assert [f.error.shape for f in found if f.error is not None] == [(1, 1, 4, 4)] * 3
    assert len(list(restorer.restore(frames.numpy()))) == 3
    assert keep.load_restorer(weights, "cpu", min_confidence=0.5).options["min_confidence"] == 0.5
