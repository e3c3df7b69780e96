import importlib.util
import warnings

import pytest
import torch

from keep.baselines.frame_networks import Spandrel, TorchScript, _each
from keep.config.registry import BASELINES
from keep.degradation.resize import upsample
from keep.utils.errors import UserError


class Darker(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x - 0.5, x


class Noisy(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.randn_like(x)


LQ = torch.rand(3, 3, 6, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def script(tmp_path):
    """Network → its TorchScript file."""

    def save(net: torch.nn.Module):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.script(net).save(str(tmp_path / "net.pt"))
        return tmp_path / "net.pt"

    return save


def test_torchscript(script):
    path = script(Darker())
    restorer = BASELINES.spec({"type": "TorchScript", "weights": path, "name": "GPEN"}).build().to(torch.device("cpu"))
    torch.testing.assert_close(restorer(LQ), (upsample(LQ) - 0.5).clamp(-1, 1))
    assert restorer.describe() == f"GPEN (TorchScript) {path}"


def test_faces_of_one_size_only():
    with pytest.raises(UserError, match="512×512 pixels, not 32×24"):
        _each(LQ, 4, lambda frame: frame, side=512)


def test_noise_is_the_frames_own(script):
    restorer = TorchScript(script(Noisy()))
    state = torch.random.get_rng_state()
    once = restorer(LQ)
    torch.testing.assert_close(restorer(LQ), once)
    torch.testing.assert_close(restorer(LQ[:2]), once[:2])  # whatever comes after
    assert not torch.equal(once[0], once[1])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_files_that_do_not_fit(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        TorchScript(tmp_path / "none.pt")
    with pytest.raises(UserError, match="there is no file"):
        Spandrel(tmp_path / "none.pth")


@pytest.fixture
def spandrel():
    return pytest.importorskip("spandrel")


def test_an_unknown_network(spandrel, tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pth")
    wanted = r"; wanted: GFPGANv1\.4\.pth or .*, RestoreFormer\.ckpt .*, codeformer\.pth"
    with pytest.raises(UserError, match="does not support" + wanted):
        Spandrel(tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(b"no")
    with pytest.raises(UserError, match=r"cannot be loaded by spandrel \(.*" + wanted):
        Spandrel(tmp_path / "b.pth")


def test_a_network_that_is_no_face_restorer(spandrel, tmp_path):
    from spandrel.architectures.Compact import Compact

    torch.save({"params": Compact(num_feat=8, num_conv=2).state_dict()}, tmp_path / "c.pth")
    with pytest.raises(UserError, match="no face restorer; wanted: GFPGANv1"):
        Spandrel(tmp_path / "c.pth")


@pytest.mark.slow
def test_restoreformer(spandrel, tmp_path):
    from spandrel.architectures.RestoreFormer import RestoreFormer

    torch.manual_seed(0)
    small = RestoreFormer(
        n_embed=16, embed_dim=32, ch=32, out_ch=3, ch_mult=(1, 1, 1, 1, 1, 1), num_res_blocks=1,
        attn_resolutions=(16,), dropout=0.0, in_channels=3, resolution=512, z_channels=32, double_z=False,
        enable_mid=True, head_size=8,
    )  # fmt: skip
    torch.save({"state_dict": small.state_dict()}, tmp_path / "RestoreFormer.ckpt")
    restorer = Spandrel(tmp_path / "RestoreFormer.ckpt")
    assert restorer.describe().startswith("RestoreFormer (spandrel)")
    lq = torch.rand(1, 3, 128, 128) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(restorer(lq), small.eval()(upsample(lq))[0].clamp(-1, 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["GFPGAN", "CodeFormer"])
def test_the_large_ones(spandrel, tmp_path, name):
    if name == "GFPGAN":
        from spandrel.architectures.GFPGAN import GFPGAN

        net = GFPGAN(input_is_latent=True, different_w=True, sft_half=True)
    else:
        if importlib.util.find_spec("spandrel_extra_arches") is None:
            pytest.skip("spandrel-extra-arches is not installed")
        from spandrel_extra_arches.architectures.CodeFormer import CodeFormer

        net = CodeFormer()
        for convs in net.fuse_convs_dict.values():  # type: ignore[union-attr]
            torch.nn.init.normal_(convs.shift[-1].bias)  # type: ignore[union-attr, index]
    torch.save({"params_ema": net.state_dict()}, tmp_path / "net.pth")
    restorer = Spandrel(tmp_path / "net.pth", fidelity=0)
    assert restorer.describe().startswith(name)
    lq = torch.rand(1, 3, 128, 128) * 2 - 1
    output = restorer(lq)
    assert output.shape == (1, 3, 512, 512)
    torch.testing.assert_close(restorer(lq), output)
    restorer.fidelity = 1
    assert torch.equal(restorer(lq), output) == (name == "GFPGAN")
