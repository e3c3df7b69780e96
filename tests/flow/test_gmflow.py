"""GMFlow against the numbers of the authors' public implementation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from networks import tiny
from precision import autocast, close
from rule import weight

from keep.flow.gmflow import GMFlow
from keep.flow.windows import shift_mask
from keep.utils.errors import UserError

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def flownet(device) -> GMFlow:
    net = GMFlow().eval()
    net.load_state_dict({k: weight(f"flownet.model.{k}", tuple(v.shape)) for k, v in net.state_dict().items()})
    return net.to(device)


@pytest.mark.parametrize("size", [64, 128])
def test_flow_equals_the_public_one(flownet, size, device):
    with np.load(DATA / "public_gmflow.npz") as arrays:
        im1, im2, expected = (torch.from_numpy(arrays[f"{k}_{size}"]).to(device) for k in ("im1", "im2", "flow"))
    close(flownet(im1, im2), expected, 1e-2)


def test_rectangles_and_the_smallest_frames(flownet, device):
    assert flownet(*torch.rand(2, 1, 3, 32, 64, device=device)).shape == (1, 2, 32, 64)
    flow = flownet(*torch.rand(2, 2, 3, 16, 16, device=device))
    assert flow.shape == (2, 2, 16, 16)
    assert flow.isfinite().all()


def test_autocast_does_not_touch_it(flownet, device):
    x, y = torch.rand(2, 1, 3, 64, 64, device=device)
    with autocast(device, torch.bfloat16):
        flow = flownet(x, y)
    assert torch.equal(flow, flownet(x, y))


def test_sides_must_be_multiples_of_sixteen(flownet):
    with pytest.raises(UserError, match="40×64"):
        flownet(torch.rand(1, 3, 64, 40), torch.rand(1, 3, 64, 40))


def test_shifted_windows_attend_to_former_neighbours_only():
    mask = shift_mask(4, 4, 1, 1)
    assert mask.shape == (4, 4, 4)
    assert mask[0].all()  # the first window holds no wrapped position
    assert torch.equal(mask[3], torch.eye(4, dtype=torch.bool))  # the last one has four from four corners


def test_without_weights_it_refuses_to_estimate():
    with pytest.raises(UserError, match=r"GMFlow has no weights; .*gmflow_sintel-0c07dcb3\.pth"):
        GMFlow()(torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16))


@pytest.mark.parametrize("prefix", ["", "module.", "flownet.", "flownet.model."])
@pytest.mark.parametrize("key", [None, "model", "params_ema"])
def test_weights_come_from_the_official_file_or_from_a_checkpoint_of_keep(flownet, tmp_path, prefix, key):
    state = {f"{prefix}{k}": v for k, v in flownet.state_dict().items()}
    if prefix.startswith("flownet"):
        state["codebook.embedding.weight"] = torch.zeros(2, 2)
    torch.save({key: state} if key else state, tmp_path / "file.pth")
    net = GMFlow(weights=tmp_path / "file.pth")
    for name, value in flownet.state_dict().items():
        assert torch.equal(net.state_dict()[name], value), name
    x, y = torch.rand(2, 1, 3, 32, 32)
    assert torch.equal(net(x, y), flownet(x, y))


def test_a_file_without_gmflow_is_refused(tmp_path):
    torch.save({"params": {"codebook.embedding.weight": torch.zeros(2, 2)}}, tmp_path / "file.pth")
    with pytest.raises(UserError, match="contains no GMFlow"):
        GMFlow(weights=tmp_path / "file.pth")


def test_weights_of_a_whole_network_that_carries_gmflow_count():
    net = tiny(flow=GMFlow())
    net.load_state_dict(tiny(flow=GMFlow(random_weights=True)).state_dict())
    assert net.flownet is not None
    assert net.flownet.trained
