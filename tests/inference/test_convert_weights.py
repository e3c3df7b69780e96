"""keep-weights convert between all layouts and formats."""

import pytest
import torch
import yaml
from networks import TINY, tiny

from keep.archs.public import to_public
from keep.config.registry import ARCHS
from keep.inference.convert import main
from keep.inference.weights import load_keep, read
from keep.utils import weight_files

NET = {"type": "KEEP", **TINY}
OUTS = [(layout, suffix) for layout in ("ours", "public-v1.0.0", "public-v0.1.0") for suffix in ("pth", "safetensors")]


@pytest.fixture(scope="module")
def net():
    return tiny()


@pytest.fixture(scope="module")
def files(net, tmp_path_factory):
    """The same weights as our training checkpoint and in both public layouts, and the network's options as YAML."""
    folder = tmp_path_factory.mktemp("in")
    averaged = {k: v + 1 for k, v in net.state_dict().items()}
    arch = ARCHS.spec(NET).dump()
    weight_files.save(
        folder / "ours.pth", {"params": net.state_dict(), "params_ema": averaged, "arch": arch, "step": 7}
    )
    torch.save({"params_ema": to_public(net.state_dict())}, folder / "public-v1.0.0.pth")
    torch.save(to_public(net.state_dict(), "v0.1.0"), folder / "public-v0.1.0.pth")
    (folder / "net.yml").write_text(yaml.safe_dump(arch))
    return folder


@pytest.mark.parametrize("source", ["ours", "public-v1.0.0", "public-v0.1.0"])
def test_between_all_layouts(files, net, tmp_path, capsys, source):
    options = ["--params", "online"] if source == "ours" else ["--net", str(files / "net.yml")]
    expected = net.state_dict()
    for layout, suffix in OUTS:
        out = tmp_path / f"{layout}.{suffix}"
        assert main([str(files / f"{source}.pth"), str(out), "--layout", layout, *options]) == 0
        printed = capsys.readouterr().out
        assert f"layout {source}" in printed
        assert f"{out}: layout {layout}" in printed
        assert ("no flow estimator" in printed) == (layout != "ours")
        written = read(out)
        assert written.layout == layout
        loaded = load_keep(out) if layout == "ours" else load_keep(out, net=NET)
        assert all(torch.equal(v, expected[k]) for k, v in loaded.state_dict().items())
    content = weight_files.load(tmp_path / "public-v0.1.0.pth")
    assert content.keys() == to_public(net.state_dict(), "v0.1.0").keys()
    assert weight_files.load(tmp_path / "public-v1.0.0.pth").keys() == {"params_ema"}


def test_averaged_weights_are_the_default(files, net, tmp_path):
    assert main([str(files / "ours.pth"), str(tmp_path / "out.pth")]) == 0
    key = "generator.blocks.0.weight"
    assert torch.equal(read(tmp_path / "out.pth").state[key], net.state_dict()[key] + 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing.pth", "out.pth"), "there is no checkpoint"),
        (("ours.pth", "out.onnx"), "must be .pth or .safetensors"),
        (("public-v1.0.0.pth", "out.pth", "--params", "online"), "averaged weights only"),
        (("public-v1.0.0.pth", "out.pth"), "are unknown: name the network"),
        (("net.yml", "out.pth"), "not a checkpoint"),
    ],
)
def test_mistakes_are_reported_in_one_line(files, tmp_path, capsys, arguments, message):
    source, out, *options = arguments
    assert main([str(files / source), str(tmp_path / out), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_replaced_on_request_only(files, tmp_path, capsys):
    out = tmp_path / "out.pth"
    out.write_bytes(b"of the user")
    assert main([str(files / "ours.pth"), str(out)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {out} exists already: name another output")
    assert out.read_bytes() == b"of the user"
    assert main([str(files / "ours.pth"), str(out), "--overwrite"]) == 0
    assert read(out).layout == "ours"


def test_a_causal_network_is_not_written_as_public(tmp_path, capsys):
    state = tiny(temporal="causal").state_dict()
    weight_files.save(tmp_path / "in.pth", {"params": state, "arch": {"type": "KEEP", **TINY, "temporal": "causal"}})
    assert main([str(tmp_path / "in.pth"), str(tmp_path / "out.pth"), "--layout", "public-v1.0.0"]) == 2
    assert "gains are causal" in capsys.readouterr().err
