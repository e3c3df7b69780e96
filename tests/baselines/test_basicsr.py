import importlib.util
import sys
from unittest import mock

import pytest
import torch

from keep.baselines import basicsr
from keep.baselines.basicsr import EDVR, BasicVSR, BasicVSRPlusPlus, window_around
from keep.config.registry import BASELINES
from keep.utils.errors import UserError


def test_windows_by_hand():
    assert window_around(2, 5, 5) == [0, 1, 2, 3, 4]
    assert window_around(0, 5, 5) == [4, 3, 0, 1, 2]  # frames -2 and -1 come from the other side
    assert window_around(1, 5, 5) == [4, 0, 1, 2, 3]
    assert window_around(4, 5, 5) == [2, 3, 4, 1, 0]
    assert window_around(0, 1, 5) == [0] * 5
    assert window_around(1, 2, 5) == [1, 0, 1, 0, 0]


def test_without_the_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    basicsr._module.cache_clear()
    with pytest.raises(UserError, match=r"keep-vfsr\[baselines\]"):
        basicsr._module("edvr_arch")


needs_package = pytest.mark.skipif(importlib.util.find_spec("basicsr") is None, reason="basicsr is not installed")


@pytest.fixture
def saved(tmp_path):
    """(file, name, options) → a weight file of basicsr's network with random weights."""

    def save(file: str, name: str, **options):
        torch.manual_seed(0)
        with mock.patch("torch.cuda.is_available", return_value=True):
            net = getattr(basicsr._module(file), name)(**options)
        for parameter in net.parameters():  # offsets begin at zero, where alignment does nothing
            torch.nn.init.normal_(parameter, std=0.05)
        torch.save({"params": net.state_dict()}, tmp_path / f"{name}.pth")
        return tmp_path / f"{name}.pth"

    return save


def clip(frames: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(frames, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


@needs_package
def test_importing_leaves_no_trace():
    basicsr._module.cache_clear()
    basicsr._module("basicvsrpp_arch")
    assert not [name for name in sys.modules if name.partition(".")[0] == "basicsr"]


@needs_package
@pytest.mark.parametrize(
    "options",
    [
        {"num_feat": 16, "deformable_groups": 2, "num_extract_block": 1, "num_reconstruct_block": 2},
        {"num_feat": 8, "deformable_groups": 1, "num_extract_block": 2, "num_reconstruct_block": 1, "num_frame": 3,
         "with_predeblur": True, "hr_in": True, "with_tsa": False},
    ],
)  # fmt: skip
def test_edvr(saved, options):
    restorer = EDVR(saved("edvr_arch", "EDVR", **options))
    assert restorer.window == options.get("num_frame", 5)
    output = restorer(clip(3, 16, 20))
    assert output.shape == (3, 3, 64, 80)
    assert output.isfinite().all()
    torch.testing.assert_close(restorer(clip(1, 16, 20)).shape, (1, 3, 64, 80))
    # A change in the middle frame is seen in the first one's output.
    changed = clip(3, 16, 20)
    changed[1] = 0
    assert not torch.allclose(restorer(changed)[0], output[0])
    with pytest.raises(UserError, match="multiples of 4, not 18×16"):
        restorer(clip(1, 16, 18))


@needs_package
def test_basicvsr(saved):
    restorer = BASELINES.spec(
        {"type": "BasicVSR", "weights": saved("basicvsr_arch", "BasicVSR", num_feat=8, num_block=2)}
    ).build()
    assert restorer(clip(2, 40, 48)).shape == (2, 3, 160, 192)
    assert restorer(clip(1, 40, 48)).shape == (1, 3, 160, 192)
    assert restorer.describe().startswith("BasicVSR (basicsr)")
    with pytest.raises(UserError, match="33×33"):
        restorer(clip(2, 32, 32))


@needs_package
def test_basicvsrpp(saved):
    path = saved("basicvsrpp_arch", "BasicVSRPlusPlus", mid_channels=16, num_blocks=1)
    restorer = BasicVSRPlusPlus(path).to(torch.device("cpu"))
    output = restorer(clip(2, 64, 64))
    assert output.shape == (2, 3, 256, 256)
    restorer(clip(1, 64, 64).repeat(2, 1, 1, 1))  # a clip that reads the same backwards: it must be forgotten
    torch.testing.assert_close(restorer(clip(2, 64, 64)), output)
    for name, parameter in restorer.net.named_parameters():  # alignment is there, without CUDA too
        if "deform_align" in name and name.endswith("conv_offset.6.bias"):
            parameter += 1
    assert not torch.allclose(restorer(clip(2, 64, 64)), output, atol=1e-4)
    with pytest.raises(UserError, match="64×64"):
        restorer(clip(2, 40, 64))


@needs_package
@pytest.mark.parametrize("restorer", [EDVR, BasicVSR, BasicVSRPlusPlus])
def test_files_that_do_not_fit(restorer, tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        restorer(tmp_path / "none.pth")
    torch.save({"params": {"conv.weight": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth does not hold"):
        restorer(tmp_path / "other.pth")


@needs_package
def test_half_a_network(saved):
    path = saved("basicvsr_arch", "BasicVSR", num_feat=8, num_block=1)
    state = torch.load(path)["params"]
    del state["fusion.weight"]
    torch.save({"params": state}, path)
    with pytest.raises(UserError, match=r"fusion\.weight"):
        BasicVSR(path)
