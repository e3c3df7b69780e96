"""Every kind of weights file: recognised and loaded, or refused in one line."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import PATCHES, SMALL, TINY, build, clip, tiny
from rule import upsample, weight

from keep.archs.discriminators import PatchGAN, TemporalPatchGAN
from keep.archs.from_shapes import arch_of, infer_arch
from keep.archs.keep import KEEP
from keep.archs.public import from_codeformer, from_vqgan, to_public
from keep.archs.sizes import Sizes
from keep.config.registry import ARCHS
from keep.flow.dis import DIS
from keep.flow.gmflow import GMFlow
from keep.inference.weights import PUBLISHED, find, load_keep, read, save_safetensors, write
from keep.utils import downloads, weight_files
from keep.utils.errors import UserError

NET = {"type": "KEEP", **TINY}
NET_WITH_FLOW = {**NET, "flow": {"type": "GMFlow"}}
VQGAN_SIZES = {k: TINY[k] for k in ("image_size", "channels", "ch_mult", "attn_resolutions", "latent_dim")}


def equal(net: KEEP, state: dict[str, torch.Tensor]) -> bool:
    own = net.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[k], state[k]) for k in own)


def public_file(path: Path, net: KEEP, layout: str) -> Path:
    """A file as the authors publish them: v0.1.0 bare, v1.0.0 under ``params_ema``."""
    state = to_public(net.state_dict(), layout)  # type: ignore[arg-type]
    torch.save(state if layout == "v0.1.0" else {"params_ema": state}, path)
    return path


def one_line(path: Path | str, **options) -> str:
    with pytest.raises(UserError) as error:
        load_keep(path, **options)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message


# --- what loads -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["v0.1.0", "v1.0.0"])
def test_public_layouts(tmp_path, layout):
    net = tiny(flow=GMFlow(random_weights=True))
    path = public_file(tmp_path / "public.pth", net, layout)
    found = read(path)
    assert (found.layout, found.params) == (f"public-{layout}", "bare" if layout == "v0.1.0" else "params_ema")
    loaded = load_keep(path, net=NET_WITH_FLOW)
    assert equal(loaded, net.state_dict())
    assert not loaded.training


@pytest.mark.parametrize("layout", ["v0.1.0", "v1.0.0"])
@torch.no_grad()
def test_a_small_public_file_gives_the_public_numbers(tmp_path, layout):
    net = build("KEEP", **SMALL)
    state = {k: weight(k, tuple(v.shape)) for k, v in to_public(net.state_dict(), "v0.1.0").items()}
    if layout == "v1.0.0":
        names = {"cross_fuse.": "cfa.", "fuse_convs_dict.": "cft."}
        state = {
            next((n + k.removeprefix(o) for o, n in names.items() if k.startswith(o)), k): v for k, v in state.items()
        }
        state = {"params_ema": state}
    torch.save(state, tmp_path / "small.pth")
    loaded = load_keep(tmp_path / "small.pth", net={"type": "KEEP", **SMALL})
    with np.load(Path(__file__).parents[1] / "data/public_small.npz") as arrays:
        x, flows, out = (torch.from_numpy(arrays[k]) for k in ("x", "flows", "out"))
    torch.testing.assert_close(loaded(upsample(x), flows), out.view(1, 4, 3, 64, 64), atol=3e-4, rtol=0)


@pytest.mark.parametrize("scales", [(16, 32, 64), (32, 64, 128, 256)])
def test_released_sizes_follow_from_the_shapes(scales):
    with torch.device("meta"):
        net = KEEP(Sizes(), flow=GMFlow(random_weights=True), cft_scales=scales)
    arch = infer_arch(net.state_dict())
    expected = ARCHS.spec({"type": "KEEP", "cft_scales": scales, "flow": "GMFlow"})
    assert ARCHS.spec(arch).dump() == expected.dump()


def test_other_sizes_follow_except_for_the_heads():
    heads = {"T_Q": 4, "Kalman filter network": 4, "CFA": 2}
    for options in (TINY, SMALL, TINY | {"cfa_scales": (), "attn_resolutions": (16, 8)}, TINY | PATCHES):
        with torch.device("meta"):
            net: KEEP = ARCHS.spec({"type": "KEEP", **options}).build()
        expected = ARCHS.spec({"type": "KEEP", **options}).options
        found = ARCHS.spec(infer_arch(net.state_dict(), heads=heads)).options
        same = expected.keys() - (() if net.cfa else ("cfa_heads", "cfa_head_dim"))
        assert {k: found[k] for k in same} == {k: expected[k] for k in same}
    with pytest.raises(UserError, match=r"the heads of its Kalman filter network .* are unknown"):
        infer_arch(tiny().state_dict())


def test_a_training_checkpoint_says_its_own_size(tmp_path):
    net = tiny(temporal="causal")
    averaged = {k: v + 1 for k, v in net.state_dict().items()}
    arch = ARCHS.spec({**NET, "temporal": "causal"}).dump()
    weight_files.save(
        tmp_path / "net.pth", {"params": net.state_dict(), "params_ema": averaged, "arch": arch, "step": 1}
    )
    assert equal(load_keep(tmp_path / "net.pth"), averaged)
    online = load_keep(tmp_path / "net.pth", params="online")
    assert equal(online, net.state_dict())
    assert online.kalman_filter.temporal == "causal"
    assert arch_of(online) == arch


def test_safetensors_carry_their_arch(tmp_path):
    net = tiny(temporal="causal", flow=GMFlow(random_weights=True))
    save_safetensors(net, tmp_path / "net.safetensors")
    loaded = load_keep(tmp_path / "net.safetensors")
    assert equal(loaded, net.state_dict())
    assert ARCHS.spec(arch_of(loaded)).dump() == ARCHS.spec({**NET_WITH_FLOW, "temporal": "causal"}).dump()
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


def test_the_groups_of_the_norms_are_kept():
    norms = [m.num_groups for m in tiny(norm_groups=8).modules() if isinstance(m, torch.nn.GroupNorm)]
    again = ARCHS.spec(arch_of(tiny(norm_groups=8))).build()
    assert [m.num_groups for m in again.modules() if isinstance(m, torch.nn.GroupNorm)] == norms


def test_a_network_with_another_flow_is_saved_when_its_options_are_known(tmp_path):
    net = tiny(flow=DIS())
    with pytest.raises(UserError, match="pass `arch`"):
        save_safetensors(net, tmp_path / "net.safetensors")
    save_safetensors(net, tmp_path / "net.safetensors", {**NET, "flow": {"type": "dis", "preset": "fast"}})
    loaded = load_keep(tmp_path / "net.safetensors")
    assert isinstance(loaded.flownet, DIS)
    save_safetensors(loaded, tmp_path / "again.safetensors")
    assert arch_of(load_keep(tmp_path / "again.safetensors"))["flow"] == {"type": "dis", "preset": "fast"}


def test_raft_is_built_from_the_checkpoint_itself(tmp_path, monkeypatch):
    from torchvision.models.optical_flow import raft_small

    monkeypatch.setattr(downloads, "fetch", lambda *_, **__: pytest.fail("read a file that may not be here"))
    raft = {f"flownet.net.{k}": v for k, v in raft_small(weights=None).state_dict().items()}
    arch = {**NET, "flow": {"type": "raft", "size": "small", "weights": "/not/here.pth"}}
    state = {**tiny().state_dict(), **raft}
    weight_files.save(tmp_path / "net.pth", {"params": state, "arch": arch})
    assert equal(load_keep(tmp_path / "net.pth"), state)


def test_the_flow_can_be_replaced(tmp_path):
    path = public_file(tmp_path / "public.pth", tiny(flow=GMFlow(random_weights=True)), "v1.0.0")
    flow = GMFlow(random_weights=True)
    loaded = load_keep(path, flow=flow, net=NET)
    assert loaded.flownet is flow
    assert isinstance(load_keep(path, flow="dis", net=NET).flownet, DIS)
    with pytest.raises(UserError, match="did you mean 'dis'"):
        load_keep(path, flow="diss", net=NET)


def test_a_network_can_be_given_to_fill(tmp_path):
    net = tiny()
    torch.save(net.state_dict(), tmp_path / "bare.pth")
    given = tiny()
    assert load_keep(tmp_path / "bare.pth", net=given) is given
    assert "which network it belongs to" in one_line(tmp_path / "bare.pth")


def test_published_names_are_downloaded(tmp_path, monkeypatch):
    path = public_file(tmp_path / "x.pth", tiny(flow=GMFlow(random_weights=True)), "v1.0.0")
    asked = []
    monkeypatch.setattr("keep.inference.weights.reading.fetch", lambda *arguments: asked.append(arguments) or path)
    load_keep("KEEP_Asian", net=NET_WITH_FLOW, cache=tmp_path / "cache")
    url = "https://github.com/jnjaby/KEEP/releases/download/v1.0.0/KEEP_Asian-4765ebe0.pth"
    assert asked == [(url, "4765ebe0", "KEEP_Asian-4765ebe0.pth", tmp_path / "cache")]
    assert all(digest in url for url, digest in PUBLISHED.values())
    with pytest.raises(UserError, match="did you mean 'KEEP_Asian'"):
        find("KEEP_asian")
    with pytest.raises(UserError, match="there is no checkpoint"):
        find("nothing.pth")


# --- what is refused --------------------------------------------------------------------------------------------


def codeformer_state() -> dict[str, torch.Tensor]:
    state = to_public(tiny().state_dict(), "v0.1.0")
    return {k: v for k, v in state.items() if not k.startswith(("kalman_filter.", "cross_fuse.", "hq_encoder."))}


def public_vqgan_state() -> dict[str, torch.Tensor]:
    state = build("VQGAN", **VQGAN_SIZES, codebook_size=32).state_dict()
    return {k.replace("codebook.", "quantize."): v for k, v in state.items()}


WRONG = {
    "a CodeFormer file": lambda: {"params_ema": codeformer_state()},
    "a stage I VQGAN;": lambda: {"params": build("VQGAN", **VQGAN_SIZES, codebook_size=32).state_dict()},
    "a stage I VQGAN in the public names": lambda: {"params_ema": public_vqgan_state()},
    "a discriminator": lambda: {"params": TemporalPatchGAN(channels=2).state_dict()},
    "a discriminator;": lambda: PatchGAN(channels=2).state_dict(),
    "GMFlow": lambda: {"model": GMFlow(random_weights=True).state_dict()},
    "an unknown network": lambda: {"layer.weight": torch.zeros(1)},
}


@pytest.mark.parametrize("what", WRONG)
def test_weights_of_another_network(tmp_path, what):
    torch.save(WRONG[what](), tmp_path / "wrong.pth")
    message = one_line(tmp_path / "wrong.pth")
    assert f"looks like {what}" in message
    assert "expected a checkpoint of KEEP; it lacks " in message
    if "CodeFormer" in what:
        assert "it lacks hq_encoder.blocks.0.weight, kalman_filter.uncertainty_estimator.0." in message


def test_a_training_state(tmp_path):
    torch.save({"step": 1, "recipe": {}, "optimizers": {}}, tmp_path / "1.state")
    assert "a training state" in one_line(tmp_path / "1.state")


def test_no_weights_at_all(tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    assert "contains no weights" in one_line(tmp_path / "list.pth")
    torch.save({"epoch": 1}, tmp_path / "dict.pth")
    assert "it contains: epoch" in one_line(tmp_path / "dict.pth")


class Code:
    def __reduce__(self):
        return os.mkdir, (self.path,)

    def __init__(self, path):
        self.path = path


@pytest.mark.parametrize("plain", [True, False])
def test_code_in_a_pickle_is_not_run(tmp_path, plain):
    path, trace = tmp_path / "evil.pth", tmp_path / "trace"
    if plain:
        path.write_bytes(pickle.dumps({"params": Code(str(trace))}, protocol=2))
    else:
        torch.save({"params": Code(str(trace))}, path)
    message = one_line(path)
    assert "holds more than tensors" in message
    assert not trace.exists()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_files_that_are_cut_short_or_something_else(tmp_path, suffix):
    path = tmp_path / f"net.{suffix}"
    write(path, tiny().state_dict(), NET)
    intact = path.read_bytes()
    for content in (
        intact[: len(intact) // 2],
        intact[:-100],
        intact[:6],
        b"",
        b"<html>not found</html>",
        b"\x89PNG\r\n\x1a\n",
    ):
        path.write_bytes(content)
        assert "truncated" in one_line(path)
    path.unlink()
    assert "there is no checkpoint" in one_line(path)
    path.mkdir()
    assert "the folder has no model.safetensors" in one_line(path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b"hello\nworld", "it begins with 'hello'"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it begins with 'version https://git-lfs.'"),
        (b"PK\x03\x04 and no more", "its data are incomplete or of another kind"),
        (b"\x80\x02}q\x00", "its data are incomplete or of another kind"),
        (b"\x89PNG\r\n\x1a\n", "it does not begin like one"),
    ],
)
def test_the_reason_why_a_file_is_no_checkpoint_can_be_read(tmp_path, content: bytes, why: str) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    assert one_line(path) == f"{path} is not a checkpoint, or is truncated: {why}"


def test_another_size_than_the_options(tmp_path):
    torch.save({"params": tiny().state_dict(), "arch": {**NET, "latent_dim": 8}}, tmp_path / "net.pth")
    assert "is 16×" in one_line(tmp_path / "net.pth")
    torch.save({"params": tiny().state_dict(), "arch": {**NET, "chanels": 8}}, tmp_path / "net.pth")
    message = one_line(tmp_path / "net.pth")
    assert "cannot build" in message
    assert "'channels'" in message


def test_a_public_file_with_names_missing(tmp_path):
    state = to_public(tiny(flow=GMFlow(random_weights=True)).state_dict())
    missing = {k: v for k, v in state.items() if not k.startswith("position_emb")}
    torch.save(missing, tmp_path / "net.pth")
    assert "position_emb" in one_line(tmp_path / "net.pth")
    assert "position_emb is missing" in one_line(tmp_path / "net.pth", net=NET_WITH_FLOW)


def test_the_public_layout_holds_what_the_public_code_can_run(tmp_path):
    net = tiny(flow=GMFlow(random_weights=True))
    with pytest.raises(UserError, match="gains are causal"):
        write(tmp_path / "x.pth", net.state_dict(), {**NET, "temporal": "causal"}, "public-v1.0.0")
    with pytest.raises(UserError, match="8 groups"):
        write(tmp_path / "x.pth", net.state_dict(), {**NET, "norm_groups": 8}, "public-v1.0.0")
    with pytest.raises(UserError, match="patches of pixels"):
        write(tmp_path / "x.pth", net.state_dict(), {**NET, "patch": 2}, "public-v1.0.0")
    with pytest.raises(UserError, match="not GMFlow"):
        write(tmp_path / "x.pth", {**tiny().state_dict(), "flownet.net.x": torch.zeros(1)}, NET, "public-v1.0.0")
    assert not list(tmp_path.iterdir())


# --- starting from CodeFormer -----------------------------------------------------------------------------------


def test_a_vqgan_in_the_public_names_starts_stage_two():
    state = public_vqgan_state()
    ours = {k.replace("quantize.", "codebook."): v for k, v in state.items()}
    taken, expected = from_vqgan(state), from_vqgan(ours)
    assert taken.keys() == expected.keys()
    assert all(taken[k] is expected[k] for k in taken)
    assert {k.split(".")[0] for k in taken} == {"lq_encoder", "hq_encoder", "codebook", "generator"}
    with pytest.raises(UserError, match="use the file of stage I"):
        from_vqgan(codeformer_state())


def test_codeformer_fills_lq_encoder_and_code_transformer():
    net, state = tiny(), codeformer_state()
    taken = from_codeformer(state)
    missing, unexpected = net.load_state_dict(taken, strict=False)
    assert not unexpected
    assert {k.split(".")[0] for k in missing} == {"hq_encoder", "kalman_filter", "cft", "cfa"}
    assert torch.equal(net.code_transformer.position_emb, state["position_emb"])


# --- the real size ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["v0.1.0", "v1.0.0"])
@torch.no_grad()
def test_full_size_from_a_file_to_frames(tmp_path, layout):
    """The released configuration with the rule's weights: read with nothing named, two frames at 512×512."""
    from keep.archs.public import from_public

    with torch.device("meta"):
        shapes = {
            k: tuple(v.shape)
            for k, v in to_public(KEEP(Sizes(), flow=GMFlow(random_weights=True)).state_dict(), "v0.1.0").items()
        }
    net = KEEP(Sizes(), flow=GMFlow(random_weights=True)).eval()
    net.load_state_dict(from_public({k: weight(k, shape) for k, shape in shapes.items()}))
    loaded = load_keep(public_file(tmp_path / "KEEP.pth", net, layout))
    assert equal(loaded, net.state_dict())
    lq, _ = clip(2, size=512)
    output = loaded(lq)
    assert isinstance(output, torch.Tensor)
    assert torch.equal(output, net(lq))
    assert output.std() > 0.1


@pytest.mark.parametrize("given", ["module", "options"])
def test_weights_of_another_network_with_equal_shapes_are_refused(tmp_path, given):
    save_safetensors(tiny(temporal="causal"), tmp_path / "net.safetensors", arch={**NET, "temporal": "causal"})
    other = {**NET, "temporal": "clip"}
    net = ARCHS.spec(other).build() if given == "module" else other
    with pytest.raises(UserError, match="trained as another network: temporal is causal in the file and clip"):
        load_keep(tmp_path / "net.safetensors", net=net)
    same = {**NET, "temporal": "causal"}
    load_keep(tmp_path / "net.safetensors", net=ARCHS.spec(same).build() if given == "module" else same)


def test_a_public_file_does_not_fill_a_causal_network(tmp_path):
    path = public_file(tmp_path / "public.pth", tiny(flow=GMFlow(random_weights=True)), "v1.0.0")
    with pytest.raises(UserError, match="temporal is clip in the file and causal"):
        load_keep(path, net=tiny(temporal="causal", flow=GMFlow()))
