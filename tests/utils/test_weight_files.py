"""Checkpoint files: loaded in full, or refused with the differences."""

from pathlib import Path

import pytest
import torch
from torch import nn

from keep.utils import weight_files
from keep.utils.errors import UserError


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def test_weights_of_an_old_pytorch_lack_the_counters_of_batch_norm():
    state = {k: v for k, v in network().state_dict().items() if not k.endswith("num_batches_tracked")}
    net = network()
    weight_files.fill(net, state, "old.pth")
    assert all(torch.equal(net.state_dict()[k], v) for k, v in state.items())


def test_weights_of_another_network_are_refused_and_nothing_is_loaded():
    net = network()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = {**network().state_dict(), "1.weight": torch.zeros(5), "2.bias": torch.zeros(1)}
    del state["0.bias"]
    with pytest.raises(UserError) as refused:
        weight_files.fill(net, state, "other.pth", "the network")
    assert str(refused.value) == (
        "other.pth holds the weights of another network than the network: "
        "0.bias is missing; 2.bias is unknown; 1.weight is 5, not 4"
    )
    assert all(torch.equal(net.state_dict()[k], v) for k, v in before.items())


@pytest.mark.parametrize("key", ["params_ema", "state_dict", None])
def test_a_network_is_found_under_the_usual_keys(key, tmp_path):
    state = network().state_dict()
    weight_files.save(tmp_path / "net.pth", {key: state} if key else dict(state))
    loaded = weight_files.load_network(tmp_path / "net.pth")
    assert loaded.keys() == state.keys()
    weight_files.save(tmp_path / "none.pth", {"step": 3})
    with pytest.raises(UserError, match="holds no network weights; its keys: step"):
        weight_files.load_network(tmp_path / "none.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_flipped_bit_is_refused_or_harmless(suffix: str, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    state = {"a": torch.randn(64, 16, generator=generator), "b": torch.ones(3, dtype=torch.bfloat16)}
    path = tmp_path / f"net{suffix}"
    if suffix == ".pth":
        weight_files.save(path, {"params": state})
    else:
        weight_files.save_safetensors(path, state, {"format": "pt"})
    data = path.read_bytes()
    assert {"params"} <= weight_files.load(path).keys() <= {"params", "format"}
    refused = 0
    for _ in range(60):
        position = int(torch.randint(len(data), (), generator=generator))
        damaged = bytearray(data)
        damaged[position] ^= 1 << int(torch.randint(8, (), generator=generator))
        path.write_bytes(damaged)
        try:
            found = weight_files.load_network(path)
        except UserError as error:
            refused += str(path) in str(error) and "\n" not in str(error)
            continue
        assert all(torch.equal(found[k], v) for k, v in state.items())  # in padding, or in a name of the archive
    assert refused > 40


def test_safetensors_without_our_checksum_load(tmp_path: Path) -> None:
    import safetensors.torch

    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"a": torch.ones(2)}, path)
    assert torch.equal(weight_files.load_network(path)["a"], torch.ones(2))
