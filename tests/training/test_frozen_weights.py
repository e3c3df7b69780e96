"""Frozen weights under autocast are cast once, and a step computes the same."""

from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.nn as nn
from tiny_runs import options_and_start
from torch.utils._python_dispatch import TorchDispatchMode

from keep.config.reading import load
from keep.config.registry import build
from keep.config.schema import TrainConfig
from keep.training import precision, trainer
from keep.training.frozen_weights import FrozenConv2d, FrozenLinear, cast_frozen_weights_once
from keep.training.prefetch import step_batches

GMFLOW = "{type: GMFlow, random_weights: true}"
MORE = {2: [f"model.net.flow={GMFLOW}"], 3: ["model.gan_start=0", f"model.net.flow={GMFLOW}", "model.flow=null"]}


class Casts(TorchDispatchMode):
    """Counts the conversions of some tensors to another type."""

    def __init__(self, tensors: list[nn.Parameter]) -> None:
        super().__init__()
        self.names = {t.data_ptr() for t in tensors}
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ == "_to_copy" and args[0].data_ptr() in self.names
        return func(*args, **(kwargs or {}))


def started(stage: int, clips: Path, root: Path, *more: str):
    path, overrides = options_and_start(stage, clips, root, "train.amp=bf16", *MORE[stage], *more)
    run = trainer.build_run(load(path, overrides, TrainConfig))
    (batch,), _ = next(step_batches(run, build(run.config.data.train)))
    return run, batch


# What is left are the weights of T_Q's attention, which stage III's T_Q calls for each of three frames.
@pytest.mark.parametrize(("stage", "most"), [(2, 1), (3, 12)])
def test_casts_of_frozen_weights_in_a_step(stage, most, clips, tmp_path) -> None:
    run, batch = started(stage, clips, tmp_path)
    trainer.train_step(run, [batch])
    frozen = [p for p in run.recipe.parameters() if not p.requires_grad]
    with Casts(frozen) as casts:
        trainer.train_step(run, [batch])
    assert casts.count <= most


@pytest.mark.parametrize("stage", [2, 3])
def test_a_step_gives_the_same_bits(stage, clips, tmp_path, monkeypatch) -> None:
    run, batch = started(stage, clips, tmp_path)
    assert Counter(type(m) for m in run.recipe.modules())[FrozenConv2d] > 10
    monkeypatch.setattr(precision, "cast_frozen_weights_once", lambda _: None)
    plain, _ = started(stage, clips, tmp_path)
    assert list(plain.recipe.state_dict()) == list(run.recipe.state_dict())
    for either in (run, plain):
        torch.manual_seed(0)
        for _ in range(2):
            trainer.train_step(either, [batch])
            either.step += 1
    weights = plain.recipe.state_dict()
    assert all(torch.equal(v, weights[k]) for k, v in run.recipe.state_dict().items())


@pytest.mark.parametrize("layer", [nn.Conv2d(3, 4, 3, stride=2, padding=1, padding_mode="reflect"), nn.Linear(3, 4)])
def test_copies_follow_the_weights(layer) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 6) if isinstance(layer, nn.Conv2d) else torch.randn(5, 3)
    net = nn.Sequential(layer.requires_grad_(False))
    cast_frozen_weights_once(net)
    assert type(net[0]) in (FrozenConv2d, FrozenLinear)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net(x), layer(x))
        net.load_state_dict({k: v + 1 for k, v in net.state_dict().items()})  # in place
        assert torch.equal(net(x), layer(x))
        layer.weight.data = layer.weight.data * 2
        assert torch.equal(net(x), layer(x))
        with torch.autocast("cpu", torch.float16):
            assert net(x).dtype == torch.float16
        net.requires_grad_(True)
        net(x).sum().backward()
        assert layer.weight.grad is not None
    assert torch.equal(net(x), layer(x))  # without autocast in float32


def test_layers_that_train_stay() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MultiheadAttention(4, 2).requires_grad_(False))
    cast_frozen_weights_once(net)
    assert type(net[0]) is nn.Conv2d
    assert not any(isinstance(m, FrozenLinear) for m in net.modules())
