from typing import Any

import pytest
import torch
from basicsr_archs import arch, randomise

from keep.baselines import clip_networks
from keep.baselines.clip_networks import ClipNetwork, parts
from keep.config.registry import ARCHS, BASELINES
from keep.degradation.resize import upsample
from keep.models.clip_nets import window_around
from keep.utils.errors import UserError

NETS: dict[str, dict[str, Any]] = {
    "EDVR": {"type": "EDVR", "width": 8, "window": 3, "groups": 2, "extract_blocks": 1, "reconstruct_blocks": 1},
    "BasicVSR": {"type": "BasicVSR", "width": 8, "blocks": 2},
    "BasicVSRPlusPlus": {"type": "BasicVSRPP", "width": 8, "blocks": 1, "groups": 4},
}


def clip(frames: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(frames, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture
def saved(tmp_path):
    """(options, stored) → a weight file of the network, with or without its options, and the network."""

    def save(options: dict[str, Any], stored: bool, name: str = "net.pth"):
        net = ARCHS.spec(options).build()
        randomise(net)
        torch.save({"params": net.state_dict()} | ({"arch": options} if stored else {}), tmp_path / name)
        return tmp_path / name, net

    return save


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("name", NETS)
def test_a_file_gives_its_network(saved, name, stored):
    path, net = saved(NETS[name], stored)
    restorer = BASELINES.spec({"type": name, "weights": path}).build()
    assert type(restorer.net) is type(net)
    lq = clip(4, 16, 18)
    with torch.no_grad():
        if name == "EDVR":
            assert restorer.future_frames == 1
            expected = torch.stack([net(lq[None, window_around(t, 4, 3)])[0] for t in range(4)])
        else:
            assert restorer.future_frames is None
            expected = net(lq[None])[0]
    assert torch.equal(restorer(lq), expected.clamp(-1, 1))
    assert restorer(lq[:1]).shape == (1, 3, 64, 72)
    assert str(path) in restorer.describe()
    assert restorer.files == (path,)


def test_sizes_of_all_options_are_read_from_the_shapes(saved):
    options = NETS["EDVR"] | {"upsampled": True, "predeblur": True, "tsa": False, "window": 5, "reconstruct_blocks": 2}
    path, net = saved(options, stored=False)
    restorer = ClipNetwork(path)
    assert (restorer.net.window, restorer.upsampling) == (5, 4)  # LQ frames are upsampled for it
    lq = clip(5, 8, 8)
    with torch.no_grad():
        assert torch.equal(restorer(lq)[2], net(upsample(lq, 4)[None])[0].clamp(-1, 1))
    path, _ = saved(NETS["BasicVSRPlusPlus"] | {"enlarge_input": False}, stored=False)
    assert ClipNetwork(path).net.scale == 1


def test_a_file_of_basicsr(tmp_path):
    theirs = arch("basicvsr_arch", "BasicVSR", num_feat=8, num_block=2)
    torch.save({"params": theirs.state_dict()}, tmp_path / "basicsr.pth")
    lq = clip(3, 40, 48)
    with torch.no_grad():
        expected = (theirs(lq[None] / 2 + 0.5)[0] * 2 - 1).clamp(-1, 1)
    restorer = BASELINES.spec({"type": "BasicVSR", "weights": tmp_path / "basicsr.pth"}).build()
    torch.testing.assert_close(restorer(lq), expected, rtol=0, atol=1e-5)


def test_a_file_of_mmagic(tmp_path):
    net = ARCHS.spec(NETS["BasicVSR"]).build()
    randomise(net)
    torch.save({"meta": {}, "state_dict": {mmagic_name(k): v for k, v in net.state_dict().items()}}, tmp_path / "m.pth")
    lq = clip(3, 16, 18)
    with torch.no_grad():
        expected = net(lq[None])[0].clamp(-1, 1)
    assert torch.equal(ClipNetwork(tmp_path / "m.pth")(lq), expected)


def mmagic_name(key: str) -> str:
    """Our name of a weight of BasicVSR → mmagic's, as far as its layout is known without a file."""
    parts = key.split(".")
    if parts[0] == "spynet":
        parts[4:5] = [str(int(parts[4]) // 2), "conv"]
    named = ".".join(parts).replace("_trunk.", "_resblocks.")
    for i in (1, 2):
        named = named.replace(f"upconv{i}.", f"upsample{i}.upsample_conv.")
    return f"generator.{named}"


def test_the_file_of_the_flow_network_is_not_needed_again(saved):
    path, _ = saved(NETS["BasicVSR"], stored=True)
    content = torch.load(path)
    content["arch"] = content["arch"] | {"spynet": "/nowhere/spynet.pth"}
    torch.save(content, path)
    assert ClipNetwork(path).net.width == 8


def test_parts_of_a_long_clip():
    assert parts(10, 6, 2) == [(0, range(0, 4)), (2, range(4, 6)), (4, range(6, 10))]
    for length, frames, overlap in ((7, 5, 1), (30, 8, 3), (9, 3, 0), (11, 10, 2)):
        found = parts(length, frames, overlap)
        assert [t for _, used in found for t in used] == list(range(length))
        for first, used in found:
            assert first >= 0
            assert first + frames <= length
            assert used.start - first >= overlap or first == 0
            assert first + frames - used.stop >= overlap or first + frames == length


def test_overlapping_parts_replace_the_whole_clip(saved):
    path, net = saved(NETS["BasicVSR"], stored=True)
    restorer = ClipNetwork(path, frames=5, overlap=1)
    assert restorer.future_frames == 4
    lq = clip(7, 16, 16)
    out = restorer(lq)
    with torch.no_grad():
        assert torch.equal(out[:4], net(lq[None, :5])[0, :4].clamp(-1, 1))
        assert torch.equal(out[4:], net(lq[None, 2:7])[0, 2:].clamp(-1, 1))
    changed = lq.clone()
    changed[5:] = 0
    assert torch.equal(restorer(changed)[:4], out[:4])  # its latency: frame 0 never sees frame 5,
    changed[4] = 0
    assert not torch.equal(restorer(changed)[0], out[0])  # but frame 4


def test_files_that_do_not_fit(saved, tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        ClipNetwork(tmp_path / "none.pth")
    torch.save({"params": {"conv.weight": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth does not hold this network"):
        BASELINES.spec({"type": "EDVR", "weights": tmp_path / "other.pth"}).build()
    with pytest.raises(UserError, match="does not store its network"):
        ClipNetwork(tmp_path / "other.pth")
    path, net = saved(NETS["BasicVSR"], stored=False)
    state = net.state_dict()
    del state["fusion.weight"]
    torch.save({"params": state}, path)
    with pytest.raises(UserError, match=r"fusion\.weight is missing"):
        ClipNetwork(path)
    with pytest.raises(UserError, match="twice the overlap"):
        ClipNetwork(path, frames=4, overlap=2)
    torch.save({"params": state, "arch": {"type": "BasicVSR", "depth": 3}}, path)
    with pytest.raises(UserError, match="this version cannot build its network: depth"):
        ClipNetwork(path)


def test_building_leaves_the_random_stream_alone(saved):
    path, _ = saved(NETS["BasicVSR"], stored=True)
    before = torch.get_rng_state()
    ClipNetwork(path)
    assert torch.equal(before, torch.get_rng_state())


def test_a_file_that_stores_its_network_keeps_its_names(saved, monkeypatch):
    def renamed(_):
        raise AssertionError("the names were changed")

    path, net = saved(NETS["BasicVSR"], stored=True)
    monkeypatch.setattr(clip_networks, "common_state", renamed)
    assert ClipNetwork(path).net.state_dict().keys() == net.state_dict().keys()
