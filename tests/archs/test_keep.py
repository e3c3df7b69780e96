"""KEEP against the numbers of the authors' public implementation, and what training relies on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from networks import PATCHES, TINY, build, clip, tiny
from precision import autocast, close
from rule import upsample

from keep.archs.keep import KEEP
from keep.archs.public import from_public, from_vqgan, to_public
from keep.archs.sizes import Sizes
from keep.config.registry import ARCHS, schema
from keep.flow.gmflow import GMFlow
from keep.utils.errors import UserError


@torch.no_grad()
def test_every_quantity_equals_the_public_one(small, public):
    # Tolerances are about ten times the noise floor, the distance from float32 to float64.
    result = small(upsample(public["x"]), public["flows"], return_states=True)
    assert torch.equal(result.codes, public["codes"].long())
    close(result.output, public["out"], 3e-4)
    close(result.logits, public["logits"], 8e-4)
    close(1 - result.gains, public["gains"], 3e-5)  # the public gain is the weight of the prediction
    close(result.z_obs, public["lq_feat"], 3e-4)
    close(result.z_prior, public["z_prime"], 3.5e-4)
    close(result.z_post[:, 1:], public["z_hat"], 3.5e-4)
    close(result.warped, public["warped"], 3e-4)


@torch.no_grad()
def test_a_batch_equals_the_public_one(small, public):
    result = small(upsample(public["b2_x"]), public["b2_flows"], return_states=True)
    assert torch.equal(result.codes, public["b2_codes"].long())
    close(result.output, public["b2_out"], 3e-4)


@torch.no_grad()
def test_a_single_frame_given_twice_equals_the_public_one(small, public):
    close(small(upsample(public["single_x"]), public["single_flows"]), public["single_out"], 3e-4)


@torch.no_grad()
def test_own_flow_equals_the_public_one(small, public):
    lq = upsample(public["x"])
    close(small.estimate_flows(lq), public["gmflow_flows"], 1e-2)
    result = small(lq, return_states=True)
    assert torch.equal(result.codes, public["gmflow_codes"].long())
    # A flow that differs by its own noise floor (7.6e-4 px) moves the warped image, and so the output, a little more.
    close(result.output, public["gmflow_out"], 3e-3)


def test_full_size_has_the_public_names_and_shapes():
    lines = (Path(__file__).parents[1] / "data/keys_full.txt").read_text().splitlines()
    expected = {}
    for line in lines:
        if line and not line.startswith("#"):
            name, shape = line.rsplit(" ", 1)[0].split(" ", 1)
            expected[name] = tuple(int(n) for n in shape.strip("()").split(",") if n.strip())
    with torch.device("meta"):
        state = KEEP(Sizes(), flow=GMFlow(random_weights=True)).state_dict()
    assert {k: tuple(v.shape) for k, v in to_public(state, "v0.1.0").items()} == expected
    assert round(sum(v.numel() for v in state.values()) / 1e6, 2) == 158.49


@pytest.mark.parametrize("layout", ["v0.1.0", "v1.0.0"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_both_public_layouts_load(layout, wrapped):
    state = tiny(flow=GMFlow(random_weights=True)).state_dict()
    there = to_public(state, layout)
    assert ("cross_fuse.8.norm1.weight" in there) == (layout == "v0.1.0")
    assert "flownet.model.backbone.conv1.weight" in there
    last = "kalman_filter.kalman_gain_calculator.1.bias"
    assert torch.equal(there[last], -state["kalman_filter.gain.1.bias"])
    back = from_public({"params_ema": there} if wrapped else there)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[k], state[k]) for k in state)


def test_stage_one_weights_fill_codebook_generator_and_both_encoders():
    model = tiny()
    sizes: dict[str, Any] = {
        k: TINY[k] for k in ("image_size", "channels", "ch_mult", "attn_resolutions", "latent_dim")
    }
    vqgan = build("VQGAN", **sizes, codebook_size=TINY["codebook_size"])
    missing, unexpected = model.load_state_dict(from_vqgan(vqgan.state_dict()), strict=False)
    assert not unexpected
    assert {k.split(".")[0] for k in missing} == {"kalman_filter", "code_transformer", "cft", "cfa"}
    for key, value in vqgan.encoder.state_dict().items():
        assert torch.equal(model.lq_encoder.state_dict()[key], value)
        assert torch.equal(model.hq_encoder.state_dict()[key], value)


@torch.no_grad()
def test_causal_output_does_not_depend_on_later_frames(device):
    model = tiny(temporal="causal").eval().to(device)
    lq, flows = clip(4, batch=2, device=device)
    complete = model(lq, flows, return_states=True)
    cut = model(lq[:, :3], flows[:, :2], return_states=True)
    close(cut.gains, complete.gains[:, :3], 1e-6)
    close(cut.output, complete.output[:, :3], 1e-4)


@torch.no_grad()
def test_stepping_frame_by_frame_equals_the_whole_clip(device):
    model = tiny(temporal="causal").eval().to(device)
    for scale in model.cfa:
        model.get_parameter(f"cfa.{scale}.norm1.weight").fill_(0.5)  # so that CFA's memory matters
    lq, flows = clip(4, device=device)
    complete = model(lq, flows)
    state = first = previous = None
    for t in range(4):
        z, features = model.observe(lq[:, t : t + 1])
        z, features = z[:, 0], {s: f[:, 0] for s, f in features.items()}
        first = z if first is None else first
        previous = z if previous is None else previous
        gain = model.kalman_filter.step(first, previous, z)
        step, state = model.step(z, gain, features, flow=flows[:, t - 1] if t else None, state=state)
        previous = z
        close(step.output, complete[:, t], 1e-4)


@pytest.mark.parametrize("temporal", ["clip", "causal"])
@torch.no_grad()
def test_one_frame_is_its_observation(temporal, device, dtype):
    model = tiny(temporal=temporal).to(device)
    with autocast(device, dtype):
        result = model(clip(1, batch=2, device=device)[0], return_states=True)
    assert torch.equal(result.z_post, result.z_obs)
    assert result.output.shape == (2, 1, 3, 32, 32)
    assert result.z_prior.shape == (2, 0, 16, 8, 8)
    assert result.warped.shape == (2, 0, 3, 32, 32)


@torch.no_grad()
def test_update_is_the_papers(device, dtype):
    lq, flows = clip(3, batch=2, device=device)
    with autocast(device, dtype):
        r = tiny().to(device)(lq, flows, return_states=True)
    k = r.gains[:, 1:]
    close(r.z_post[:, 1:], (1 - k) * r.z_prior + k * r.z_obs[:, 1:], 1e-5, dtype)


@torch.no_grad()
def test_cft_and_cfa_start_as_the_identity(device, dtype):
    model, (lq, flows) = tiny().to(device), clip(3, device=device)
    with autocast(device, dtype):
        assert torch.equal(model(lq, flows), model(lq, flows, use_cft=False, use_cfa=False))


def test_cft_and_cfa_learn_within_two_steps(device, dtype):
    model, (lq, flows) = tiny().to(device), clip(3, device=device)
    parts = {k: p for k, p in model.named_parameters() if k.startswith(("cft.", "cfa."))}
    optimizer = torch.optim.Adam(parts.values(), 1e-3)
    seen = set()
    for _ in range(2):
        optimizer.zero_grad()
        with autocast(device, dtype):
            output = model(lq, flows, grad="decoder")
        (1e3 * output.float().abs().mean()).backward()  # scaled, as in training: float16 loses small gradients
        seen |= {k for k, p in parts.items() if p.grad is not None and p.grad.abs().max() > 0}
        optimizer.step()
    assert seen == parts.keys()


def touched(model: KEEP) -> set[str]:
    """The parts of the network that have a gradient."""
    return {k.split(".")[0] for k, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("temporal", ["clip", "causal"])
def test_stage_two_gradients_reach_lq_encoder_transformer_and_kalman_network(temporal, device, dtype):
    model, (lq, flows) = tiny(temporal=temporal).to(device), clip(3, device=device)
    with autocast(device, dtype):
        result = model(lq, flows, use_cft=False, use_cfa=False, grad="codes", return_states=True)
    (result.logits.square().mean() + result.z_obs.square().mean()).backward()
    assert not result.output.requires_grad
    assert touched(model) == {"lq_encoder", "code_transformer", "kalman_filter"}
    trained = [p for k, p in model.named_parameters() if k.split(".")[0] in touched(model)]
    assert all(p.grad is not None for p in trained)


def test_stage_three_gradients_reach_cft_and_cfa_alone(device, dtype):
    model, (lq, flows) = tiny().to(device), clip(3, device=device)
    model.generator.requires_grad_(False)
    with autocast(device, dtype):
        result = model(lq, flows, grad="decoder", return_states=True)
    result.output.mean().backward()
    assert not result.logits.requires_grad
    assert not result.z_obs.requires_grad
    assert touched(model) == {"cft", "cfa"}


def test_gradients_are_off_where_the_caller_turned_them_off():
    model, (lq, flows) = tiny(), clip(2)
    with torch.no_grad():
        assert not model(lq, flows).requires_grad


@torch.no_grad()
def test_fidelity_weight(device, dtype):
    model, (lq, flows) = tiny().to(device), clip(2, device=device)
    for scale in model.cft:
        model.get_parameter(f"cft.{scale}.shift.2.bias").fill_(0.5)
    with autocast(device, dtype):
        assert torch.equal(model(lq, flows, w=0.0), model(lq, flows, use_cft=False))
        assert not torch.equal(model(lq, flows, w=1.0), model(lq, flows, w=0.5))


def test_flow_estimator_is_frozen_and_stays_in_eval_mode():
    flownet = GMFlow(random_weights=True)
    tiny(flow=flownet).train()
    assert not flownet.training
    assert not any(p.requires_grad for p in flownet.parameters())


def test_unusable_input_is_reported_in_one_line():
    model, (lq, flows) = tiny(), clip(3)
    with pytest.raises(UserError, match="no flow estimator"):
        model(lq)
    with pytest.raises(UserError, match=r"got \(1, 3, 3, 16, 16\)"):
        model(lq[..., :16, :16], flows)
    with pytest.raises(UserError, match=r"must be \(1, 2, 2, 32, 32\)"):
        model(lq, flows[:, :1])
    with pytest.raises(UserError, match="cft_scales"):
        tiny(cft_scales=(7,))
    with pytest.raises(UserError, match="multiple of 4"):
        tiny(image_size=30)
    with pytest.raises(UserError, match="heads"):
        tiny(transformer_heads=5)


@pytest.mark.parametrize("name", ARCHS.names())
def test_every_option_has_a_meaning(name):
    assert all(field.description for field in schema(ARCHS[name]).model_fields.values())


def test_options_build_the_network():
    spec = ARCHS.spec({"type": "KEEP", **TINY, "flow": {"type": "GMFlow"}})
    assert isinstance(spec.build().flownet, GMFlow)
    assert ARCHS.spec({"type": "KEEP", **TINY}).build().flownet is None


def test_the_state_carries_no_graph_through_the_output(device):
    model, (lq, _) = tiny().to(device), clip(1, device=device)
    z, features = model.observe(lq)
    step, state = model.step(z[:, 0], torch.ones(1, 1, 8, 8, device=device), {s: f[:, 0] for s, f in features.items()})
    assert step.output.requires_grad
    assert not state.output.requires_grad


def test_patches_leave_all_but_the_outermost_convolutions_alone():
    plain, patched = ({k: v.shape for k, v in model.state_dict().items()} for model in (tiny(), tiny(**PATCHES)))
    ends = {f"{name}_encoder.blocks.0.weight" for name in ("lq", "hq")}
    last = max(int(k.split(".")[2]) for k in plain if k.startswith("generator."))
    ends |= {f"generator.blocks.{last}.weight", f"generator.blocks.{last}.bias"}
    assert plain.keys() == patched.keys()
    assert {k for k in plain if plain[k] != patched[k]} == ends


def test_patches_keep_flow_and_warping_at_full_size_and_train_every_part(device, dtype):
    model, (lq, flows) = tiny(**PATCHES).to(device), clip(3, size=64, device=device)
    with autocast(device, dtype):
        result = model(lq, flows, return_states=True)
    assert result.output.shape == (1, 3, 3, 64, 64)
    assert result.warped.shape == (1, 2, 3, 64, 64)
    assert result.z_prior.shape == (1, 2, 16, 8, 8)
    (result.output.mean() + result.logits.square().mean() + result.z_obs.square().mean()).backward()
    assert touched(model) == {"lq_encoder", "kalman_filter", "code_transformer", "generator", "cft", "cfa"}
    codes_only = {"codebook", "hq_encoder"}
    trained = {k: p for k, p in model.named_parameters() if k.split(".")[0] not in codes_only}
    assert all(p.grad is not None for p in trained.values())


def test_stage_one_weights_of_patches_load():
    model = tiny(**PATCHES)
    sizes: dict[str, Any] = {
        k: TINY[k] for k in ("channels", "ch_mult", "attn_resolutions", "latent_dim", "codebook_size")
    }
    vqgan = build("VQGAN", **sizes, **PATCHES)
    missing, unexpected = model.load_state_dict(from_vqgan(vqgan.state_dict()), strict=False)
    assert not unexpected
    assert {k.split(".")[0] for k in missing} == {"kalman_filter", "code_transformer", "cft", "cfa"}
