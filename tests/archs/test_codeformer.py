"""CodeFormer: its parts, its names in public files, and equal outputs with the public implementation."""

import importlib.util

import pytest
import torch
from networks import build

from keep.archs.codeformer import CodeFormer, match_statistics
from keep.archs.public import from_public, to_public
from keep.utils.errors import UserError

SIZES = {
    "image_size": 32, "channels": 8, "ch_mult": (1, 2), "res_blocks": 1, "attn_resolutions": (16,), "latent_dim": 8,
    "codebook_size": 16, "transformer_width": 16, "transformer_heads": 2, "transformer_layers": 1,
    "transformer_mlp_width": 16, "cft_scales": (16, 32),
}  # fmt: skip


def net() -> CodeFormer:
    torch.manual_seed(0)
    made = build("CodeFormer", **SIZES)
    for cft in made.cft.values():  # it starts as the identity
        torch.nn.init.normal_(cft.shift[-1].bias)
    return made


def test_clips_are_restored_frame_by_frame() -> None:
    model, lq = net().double(), torch.rand(2, 3, 3, 32, 32, dtype=torch.float64) * 2 - 1
    states = model(lq, return_states=True)
    assert states.output.shape == lq.shape
    assert states.logits.shape == (2, 3, 256, 16)
    assert states.z.shape == (2, 3, 8, 16, 16)
    assert torch.allclose(states.output[1, 2], model(lq[1, 2:])[0], atol=1e-5)
    assert model.future_frames == 0
    with pytest.raises(UserError, match=r"frames \(…, 3, 32, 32\); got \(1, 3, 16, 16\)"):
        model(lq[0, :1, :, :16, :16])


def test_w_scales_the_features_of_the_input() -> None:
    model, lq = net(), torch.rand(1, 3, 32, 32) * 2 - 1
    code_alone, half, full = (model(lq, w) for w in (0.0, 0.5, 1.0))
    assert not torch.allclose(code_alone, full)
    assert not torch.allclose(half, full)
    other = net()
    other.cft.clear()
    assert torch.equal(other(lq), code_alone)


def test_the_code_takes_on_the_statistics_of_the_features() -> None:
    x, like = torch.randn(2, 4, 5, 5), 3 + 2 * torch.randn(2, 4, 5, 5)
    made = match_statistics(x, like)
    assert torch.allclose(made.mean((2, 3)), like.mean((2, 3)), atol=1e-4)
    assert torch.allclose(made.std((2, 3)), like.std((2, 3)), rtol=1e-3)


def test_losses_of_the_output_and_of_the_logits_reach_all_parameters() -> None:
    model = net()
    states = model(torch.rand(1, 2, 3, 32, 32) * 2 - 1, return_states=True)
    (states.output.square().mean() + states.logits.square().mean()).backward()
    assert [k for k, p in model.named_parameters() if p.grad is None] == []


def test_half_precision_and_one_trace() -> None:
    model, lq = net().eval(), torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert model(lq).isfinite().all()
    model, lq = model.double(), lq.double()  # an untrained network's logits are nearly equal: rounding chooses the code
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        assert torch.allclose(compiled(lq), model(lq), atol=1e-5)


def test_public_names_are_translated_and_ours_stay() -> None:
    own = net().state_dict()
    public = {k.replace("cft.", "fuse_convs_dict."): v for k, v in to_public(own).items()}
    assert "encoder.blocks.0.weight" in public
    for state in (public, own):
        assert CodeFormer.from_public(state).keys() == own.keys()


@pytest.fixture
def public():
    if importlib.util.find_spec("spandrel_extra_arches") is None:
        pytest.skip("spandrel-extra-arches is not installed")
    from spandrel_extra_arches.architectures.CodeFormer import CodeFormer as Public

    return Public


def test_names_and_shapes_are_those_of_public_files(public) -> None:
    with torch.device("meta"):
        ours, theirs = build("CodeFormer").state_dict(), from_public(public().state_dict())
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


@pytest.mark.slow
def test_outputs_are_those_of_the_public_implementation(public) -> None:
    torch.manual_seed(0)
    theirs = public().double().eval()
    codes = theirs.quantize.embedding
    theirs.quantize.get_codebook_feat = lambda indices, shape: codes(indices.flatten()).view(shape).permute(0, 3, 1, 2)
    torch.nn.init.normal_(theirs.position_emb)
    for convs in theirs.fuse_convs_dict.values():
        torch.nn.init.normal_(convs.scale[-1].weight, std=0.02)
        torch.nn.init.normal_(convs.shift[-1].bias)
    ours = build("CodeFormer").double().eval()
    ours.load_state_dict(from_public(theirs.state_dict()))
    lq = torch.rand(1, 3, 512, 512, dtype=torch.float64) * 2 - 1
    with torch.no_grad():  # spandrel's always matches the statistics; its lookup of codes (above) is float32 alone
        expected, output = theirs(lq, weight=0.7)[0], ours(lq, 0.7, adain=True)
    assert (output - expected).abs().max() <= 1e-5 * expected.abs().max()
