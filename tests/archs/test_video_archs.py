"""EDVR, BasicVSR and BasicVSR++: the same numbers as basicsr's, and what holds for each of them."""

from typing import Any

import pytest
import torch
from basicsr_archs import arch, randomise
from torch import Tensor

from keep.archs.basicvsr import BasicVSR
from keep.archs.basicvsrpp import BasicVSRPP
from keep.archs.edvr import EDVR
from keep.archs.video_blocks import DeformableConv
from keep.config.registry import ARCHS
from keep.utils.errors import UserError

TINY: dict[str, dict[str, Any]] = {
    "EDVR": {"width": 8, "window": 3, "groups": 2, "extract_blocks": 1, "reconstruct_blocks": 1},
    "BasicVSR": {"width": 8, "blocks": 1},
    "BasicVSRPP": {"width": 8, "blocks": 1, "groups": 4},
}
TINY_FULL_SIZE = {
    "EDVR": TINY["EDVR"] | {"upsampled": True, "predeblur": True, "tsa": False},
    "BasicVSRPP": TINY["BasicVSRPP"] | {"enlarge_input": False},
}


def clip(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def tiny(name: str, **options: Any) -> Any:
    net = ARCHS.spec({"type": name, **TINY[name], **options}).build()
    randomise(net)
    return net


def same(theirs: Any, ours: Any, lq: Tensor) -> None:
    """Outputs equal to 1e-5 of the largest value, with their weights under our names."""
    ours.load_state_dict(ours.from_public(theirs.state_dict()))
    with torch.no_grad():
        expected, found = theirs((lq + 1) / 2), (ours(lq) + 1) / 2
        assert expected.shape == found.shape
        assert expected.std() > 0.05
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
        if exchange_offsets(ours):  # the comparison would have seen a wrong order of offsets
            assert ((ours(lq) + 1) / 2 - expected).abs().max() > 1e-3 * expected.abs().max()


def exchange_offsets(net: torch.nn.Module) -> int:
    """Exchange the vertical and horizontal offsets of all deformable convolutions; returns their number."""
    layers = [m.conv_offset for m in net.modules() if isinstance(m, DeformableConv)]
    for layer in layers:
        last: Any = layer[-1] if isinstance(layer, torch.nn.Sequential) else layer
        offsets = len(last.bias) // 3 * 2
        rows = torch.arange(offsets).view(-1, 2).flip(1).flatten()
        for parameter in (last.weight, last.bias):
            parameter[:offsets] = parameter[rows]
    return len(layers)


@pytest.mark.parametrize("frames", [5, 7])
def test_edvr_equals_basicsr(frames):
    sizes = {"num_feat": 16, "num_frame": frames, "deformable_groups": 4, "num_extract_block": 2}
    theirs = arch("edvr_arch", "EDVR", **sizes, num_reconstruct_block=1)
    same(theirs, EDVR(16, frames, groups=4, extract_blocks=2, reconstruct_blocks=1), clip(1, frames, 3, 24, 20))


@pytest.mark.parametrize("frames", [5, 7])
def test_edvr_on_full_size_equals_basicsr(frames):
    sizes = {"num_feat": 8, "num_frame": frames, "deformable_groups": 2, "num_extract_block": 1}
    theirs = arch(
        "edvr_arch", "EDVR", **sizes, num_reconstruct_block=2, hr_in=True, with_predeblur=True, with_tsa=False
    )
    ours = EDVR(8, frames, 2, 1, 2, upsampled=True, predeblur=True, tsa=False)
    same(theirs, ours, clip(1, frames, 3, 48, 64))


@pytest.mark.parametrize("frames", [5, 7])
def test_basicvsr_equals_basicsr(frames):
    theirs = arch("basicvsr_arch", "BasicVSR", num_feat=16, num_block=2)
    same(theirs, BasicVSR(16, 2), clip(1, frames, 3, 40, 37))


@pytest.mark.parametrize("frames", [5, 7])
def test_basicvsrpp_equals_basicsr(frames):
    theirs = arch("basicvsrpp_arch", "BasicVSRPlusPlus", mid_channels=8, num_blocks=1, cpu_cache_length=1000)
    same(theirs, BasicVSRPP(8, 1), clip(1, frames, 3, 64, 68))


def test_basicvsrpp_on_full_size_equals_basicsr():
    options = {"mid_channels": 8, "num_blocks": 1, "is_low_res_input": False, "cpu_cache_length": 1000}
    theirs = arch("basicvsrpp_arch", "BasicVSRPlusPlus", **options)
    same(theirs, BasicVSRPP(8, 1, enlarge_input=False), clip(1, 5, 3, 256, 256))


def test_published_sizes_equal_basicsr():
    same(arch("edvr_arch", "EDVR"), EDVR(), clip(1, 5, 3, 8, 8))
    large = {"num_feat": 128, "num_reconstruct_block": 40}
    same(arch("edvr_arch", "EDVR", **large), EDVR(128, reconstruct_blocks=40), clip(1, 5, 3, 8, 8))
    same(arch("basicvsr_arch", "BasicVSR", num_block=30), BasicVSR(), clip(1, 2, 3, 33, 33))
    theirs = arch("basicvsrpp_arch", "BasicVSRPlusPlus", cpu_cache_length=1000)
    same(theirs, BasicVSRPP(), clip(1, 3, 3, 64, 64))


@pytest.mark.parametrize(
    ("name", "options", "millions"),
    [
        ("EDVR", {}, 3.300131),
        ("EDVR", {"width": 128, "reconstruct_blocks": 40}, 20.633827),
        ("BasicVSR", {}, 6.291311),
        ("BasicVSRPP", {}, 7.322927),
    ],
)
def test_published_numbers_of_parameters(name, options, millions):
    with torch.device("meta"):
        net = ARCHS.spec({"type": name, **options}).build()
    assert sum(p.numel() for p in net.parameters()) == round(millions * 1e6)


@pytest.mark.parametrize(("name", "options"), [*TINY.items(), *TINY_FULL_SIZE.items()])
def test_gradients_reach_all_parameters(name, options):
    net = ARCHS.spec({"type": name, **options}).build()
    randomise(net)
    net(clip(1, 3, 3, 16, 16)).square().mean().backward()
    without = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize(("name", "options"), [*TINY.items(), *TINY_FULL_SIZE.items()])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (13, 18)])
def test_sizes_of_the_output(name, options, height, width):
    net = ARCHS.spec({"type": name, **options}).build()
    randomise(net)
    with torch.no_grad():
        out = net(clip(2, 3, 3, height, width))
    frames = (2,) if name == "EDVR" else (2, 3)
    assert out.shape == (*frames, 3, net.scale * height, net.scale * width)
    assert out.isfinite().all()


@pytest.mark.parametrize("name", ["BasicVSR", "BasicVSRPP"])
def test_one_frame(name):
    with torch.no_grad():
        assert tiny(name)(clip(1, 1, 3, 16, 16)).shape == (1, 1, 3, 64, 64)


def test_edvr_takes_its_window_alone():
    with pytest.raises(UserError, match="middle one of 3 frames; got 1"):
        tiny("EDVR")(clip(1, 1, 3, 16, 16))


@pytest.mark.parametrize("name", TINY)
def test_no_clip(name):
    with pytest.raises(UserError, match=r"restores clips \(B, T, 3, h, w\); got \(3, 16, 16\)"):
        tiny(name)(clip(3, 16, 16))


@pytest.mark.parametrize("name", TINY)
def test_half_precision(name):
    net = tiny(name)
    lq = clip(1, 3, 3, 16, 16)
    with torch.no_grad():
        exact = net(lq)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = net(lq)
        half = net.bfloat16()(lq.bfloat16())
    assert half.dtype == torch.bfloat16
    for other in (mixed, half):
        assert (other.float() - exact).abs().mean() < 0.02


@pytest.mark.parametrize("name", TINY)
def test_compiled_in_one_graph(name):
    net, lq = tiny(name), clip(1, 3, 3, 8, 8)
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    with torch.no_grad():
        assert torch.allclose(compiled(lq), net(lq), atol=1e-5)


@pytest.mark.parametrize("name", ["BasicVSR", "BasicVSRPP"])
def test_every_frame_depends_on_all_others(name):
    net = tiny(name)
    lq = clip(1, 4, 3, 16, 16)
    changed = lq.clone()
    changed[:, 0] *= -1
    with torch.no_grad():
        assert (net(changed) - net(lq)).abs().amax((0, 2, 3, 4)).min() > 1e-6
    assert net.future_frames is None
    assert tiny("EDVR").future_frames == 1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("EDVR", {"window": 4}, "must be odd"),
        ("EDVR", {"upsampled": True}, "needs predeblur"),
        ("EDVR", {"width": 9}, "9 channels cannot be split into 2"),
        ("BasicVSRPP", {"groups": 3}, "must be even"),
    ],
)
def test_options_that_do_not_fit(name, options, message):
    with pytest.raises(UserError, match=message):
        tiny(name, **options)


def test_names_of_mmagic():
    """Written from what is known of its layout; no file of it was at hand."""
    zero = torch.zeros(1)
    names = {
        "generator.backward_resblocks.main.0.weight": "backward_trunk.main.0.weight",
        "generator.forward_resblocks.main.2.0.conv1.bias": "forward_trunk.main.2.0.conv1.bias",
        "generator.upsample1.upsample_conv.weight": "upconv1.weight",
        "generator.spynet.basic_module.5.basic_module.3.conv.weight": "spynet.basic_module.5.basic_module.6.weight",
    }
    assert list(BasicVSR.from_public(dict.fromkeys(names, zero))) == list(names.values())
    assert BasicVSR.from_public({"generator.spynet.mean": zero, "step_counter": zero}) == {}
    names = {
        "generator.pcd_alignment.offset_conv1.l3.conv.weight": "pcd_align.offset_conv1.l3.weight",
        "generator.pcd_alignment.dcn_pack.l1.conv_offset.bias": "pcd_align.dcn_pack.l1.conv_offset.bias",
        "generator.feat_l2_conv1.conv.weight": "conv_l2_1.weight",
        "generator.fusion.spatial_attn_add1.conv.weight": "fusion.spatial_attn_add1.weight",
    }
    assert list(EDVR.from_public(dict.fromkeys(names, zero))) == list(names.values())
    key = "deform_align.backward_1.conv_offset.6.weight"
    assert list(BasicVSRPP.from_public({f"generator.{key}": zero})) == [key]
