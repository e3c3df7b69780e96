"""The accelerated network against the plain one."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from networks import PATCHES, TINY, build, clip, tiny
from precision import close
from rule import upsample

import keep.app
import keep.restore
import keep.test
from keep.archs.blocks import Upsample
from keep.archs.keep import KEEP
from keep.flow.gmflow import GMFlow
from keep.inference.fast import accelerate, keep_freed_memory
from keep.inference.fast.modules import ChannelsLastGroupNorm, FusedUpsample
from keep.inference.streaming import stream
from keep.utils.errors import UserError


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("fuse_upsample", [True, False])
@torch.no_grad()
def test_float32_gives_the_same(small, public, channels_last, fuse_upsample):
    lq = upsample(public["x"])
    plain = small(lq, public["flows"], return_states=True)
    net = accelerate(small, channels_last=channels_last, fuse_upsample=fuse_upsample)
    fast = net(lq, public["flows"], return_states=True)
    assert torch.equal(fast.codes, plain.codes)
    close(fast.output, plain.output, 1e-3)
    close(fast.gains, plain.gains, 1e-4)


@pytest.mark.parametrize("channels_last", [True, False])
@torch.no_grad()
def test_float32_gives_the_same_on_patches(channels_last, device):
    net, (lq, flows) = tiny(**PATCHES).eval().to(device), clip(3, size=64, device=device)
    plain = net(lq, flows, return_states=True)
    fast = accelerate(net, channels_last=channels_last)(lq, flows, return_states=True)
    assert torch.equal(fast.codes, plain.codes)
    close(fast.output, plain.output, 1e-4)
    reduced = accelerate(net, torch.bfloat16, channels_last=channels_last)(lq, flows, return_states=True)
    assert (reduced.output.shape, reduced.output.dtype) == (plain.output.shape, torch.float32)
    close(reduced.z_obs, plain.z_obs, 0.1)


@torch.no_grad()
def test_float32_meets_the_public_numbers(small, public):
    result = accelerate(small)(upsample(public["x"]), public["flows"], return_states=True)
    assert torch.equal(result.codes, public["codes"].long())
    close(result.output, public["out"], 1e-3)


@torch.no_grad()
def test_batch_and_streaming_of_the_accelerated_network(small, public):
    fast = accelerate(small)
    lq = upsample(public["b2_x"])
    result = fast(lq, public["b2_flows"], return_states=True)
    assert torch.equal(result.codes, public["b2_codes"].long())
    close(result.output, public["b2_out"], 1e-3)
    flows = public["b2_flows"]
    frames = list(stream(fast, lq.unbind(1), flows.unbind(1), window=2))
    expected = list(stream(small, lq.unbind(1), flows.unbind(1), window=2))
    close(torch.stack([f.output for f in frames]), torch.stack([f.output for f in expected]), 1e-3)


@pytest.mark.parametrize("frames", [1, 2, 3])
@torch.no_grad()
def test_flows_of_a_clip_equal_those_of_its_pairs(small, public, frames):
    lq = upsample(public["b2_x"])[:, :frames]
    close(accelerate(small).estimate_flows(lq), small.estimate_flows(lq), 1e-2)  # GMFlow's noise floor: 7.6e-4 px


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 7), (8, 8)])
@torch.no_grad()
def test_fused_upsample_is_nearest_and_convolution(size, device):
    torch.manual_seed(0)
    plain = Upsample(6).double().to(device)
    x = torch.randn(2, 6, *size, dtype=torch.float64).to(device)
    fused = FusedUpsample(plain)(x)
    close_to = plain.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
    torch.testing.assert_close(fused, close_to, atol=1e-12, rtol=0)  # an identity, borders and corners included


def test_the_original_is_left_alone(small):
    before = {k: v.clone() for k, v in small.state_dict().items()}
    fast = accelerate(small, torch.bfloat16)
    after = small.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) and before[k].dtype == after[k].dtype for k in before)
    assert all(v.is_contiguous() for v in after.values())
    assert type(small) is KEEP
    assert any(isinstance(m, Upsample) for m in small.modules())
    assert isinstance(fast, KEEP)
    own = {p.data_ptr() for p in small.parameters()}
    assert not own & {p.data_ptr() for p in fast.parameters()}


@pytest.mark.parametrize("reduced", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_reduced_precision(small, public, reduced):
    # Outputs cannot be compared: with these weights the recurrence is chaotic, and some codes flip.
    fast = accelerate(small, reduced)
    result = fast(upsample(public["x"]), public["flows"], return_states=True)
    assert {v.dtype for v in (result.output, result.logits, result.z_post, result.gains)} == {torch.float32}
    close(result.z_obs, public["lq_feat"], 0.16)
    # Processors round bfloat16 differently: single gains differ by up to .05, their mean by .007.
    deviation = (1 - result.gains - public["gains"]).abs()
    assert deviation.mean() < 0.015
    assert deviation.max() < 0.1
    assert (result.codes == public["codes"].long()).double().mean() > 0.5
    assert isinstance(fast.flownet, GMFlow)
    positions = [fast.flownet.feature_flow_attn, fast.flownet.upsampler]
    features = torch.bfloat16 if reduced == torch.bfloat16 else torch.float32
    assert fast.get_parameter("flownet.backbone.conv1.weight").dtype == features
    float32 = [*positions, fast.kalman_filter, fast.code_transformer.idx_pred_layer, fast.generator.blocks[-1]]
    assert all(p.dtype == torch.float32 for part in float32 for p in part.parameters())
    assert fast.get_parameter("lq_encoder.blocks.0.weight").dtype == reduced


def test_flow_other_than_gmflow_stays():
    class Still(nn.Module):
        def forward(self, current: torch.Tensor, previous: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(current[:, :2])

    fast = accelerate(build("KEEP", **TINY, flow=Still()))
    assert fast.estimate_flows(torch.zeros(1, 3, 3, 32, 32)).shape == (1, 2, 2, 32, 32)


def test_other_dtypes_are_refused(small):
    with pytest.raises(UserError, match=r"torch\.int8 is not one of float32"):
        accelerate(small, torch.int8)


def test_the_commands_keep_freed_memory(monkeypatch):
    done = []
    for door in (keep.restore, keep.test, keep.app):
        monkeypatch.setattr(door, "keep_freed_memory", lambda door=door: done.append(door))
    for part, name, result in (
        (keep.restore.options, "parse", None), (keep.restore.command, "restore", 0), (keep.app.web, "import_gradio", 0),
        (keep.app.web, "parse", None), (keep.app.web, "check_address", None), (keep.app.web, "run", None),
        (keep.test.cli, "read_options", SimpleNamespace(device="cpu")), (keep.test, "run_benchmark", 0),
    ):  # fmt: skip
        monkeypatch.setattr(part, name, lambda *_, result=result, **__: result)
    keep.restore.restore([])
    keep.app.serve([])
    keep.test.command(["-opt", "any.yml"])
    assert done == [keep.restore, keep.app, keep.test]


def test_freed_memory_can_be_kept_and_given_back():
    assert keep_freed_memory() == keep_freed_memory(False)


@pytest.mark.parametrize("size", [256, 512])
@torch.no_grad()
def test_group_norm_of_a_large_channels_last_image_is_exact(size, device):
    torch.manual_seed(0)
    norm = nn.GroupNorm(32, 64, eps=1e-6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    norm = norm.to(device)
    x = (torch.randn(512 // size, 64, size, size) + 3 * torch.randn(1, 64, 1, 1)).to(device)
    exact = nn.functional.group_norm(x.double(), 32, norm.weight.double(), norm.bias.double(), 1e-6)
    result = ChannelsLastGroupNorm(norm)(x.contiguous(memory_format=torch.channels_last))
    assert result.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(result.double(), exact, rtol=0, atol=5e-5)
