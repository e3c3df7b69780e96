"""Steps of the recurrence as graphs. A stand-in captures on the CPU: it replays by calling the function again."""

import copy
from collections.abc import Sequence

import pytest
import torch
from networks import clip, tiny
from torch import Tensor

from keep.archs.keep import KEEP
from keep.inference.fast import accelerate
from keep.inference.fast.graphs import GRAPHS_KEPT, Captured, GraphCache, TensorFunction
from keep.inference.fast.network import FastKEEP
from keep.inference.streaming import stream


class StandIn:
    """Like a CUDA graph: the same memory is read and written at every replay."""

    def __init__(self) -> None:
        self.captures = self.replays = 0

    def __call__(self, function: TensorFunction, inputs: Sequence[Tensor]) -> Captured:
        self.captures += 1
        static = [x.clone() for x in inputs]
        outputs = [x.clone() for x in function(*static)]
        for x in outputs:  # what a replay has not written is wrong
            x.fill_(-1)

        def replay() -> None:
            self.replays += 1
            for kept, x in zip(outputs, function(*static), strict=True):
                kept.copy_(x)

        return Captured(static, outputs, replay)


@pytest.fixture
def pair() -> tuple[KEEP, FastKEEP, StandIn]:
    torch.manual_seed(0)
    net, stand_in = tiny().eval(), StandIn()
    fast = accelerate(net, graphs=True)
    assert isinstance(fast, FastKEEP)
    fast.graphs = GraphCache(stand_in, "cpu")
    return accelerate(net), fast, stand_in


@torch.no_grad()
def test_a_clip_through_graphs_is_the_same(pair):
    plain, fast, stand_in = pair
    lq, flows = clip(5)
    expected, found = (net(lq, flows, return_states=True) for net in (plain, fast))
    for name in ("output", "z_post", "logits", "codes", "warped", "z_prior"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    assert (stand_in.captures, stand_in.replays) == (1, 4)  # the first frame is not captured
    fast(lq, flows)
    assert (stand_in.captures, stand_in.replays) == (1, 8)


@torch.no_grad()
def test_streaming_through_graphs_is_the_same(pair):
    plain, fast, stand_in = pair
    lq, flows = clip(5)
    expected, found = (list(stream(net, lq.unbind(1), flows.unbind(1), window=2)) for net in (plain, fast))
    for one, other in zip(found, expected, strict=True):  # all kept until the end: no replay changes an earlier frame
        assert torch.equal(one.output, other.output)
    assert stand_in.captures == 1  # windows of 2 and of 1 have steps of one shape


@torch.no_grad()
def test_what_a_graph_fixes_is_part_of_its_key(pair):
    plain, fast, stand_in = pair
    lq, flows = clip(3)
    for captures, options in enumerate(({}, {"w": 0.5}, {"use_cfa": False}, {"use_cft": False}), 1):
        assert torch.equal(fast(lq, flows, **options), plain(lq, flows, **options))
        assert stand_in.captures == captures
    two = torch.cat([lq, lq.flip(-1)]), torch.cat([flows, -flows])
    assert torch.equal(fast(*two), plain(*two))
    assert stand_in.captures == 5
    assert len(fast.graphs) == GRAPHS_KEPT
    assert torch.equal(fast(lq, flows), plain(lq, flows))  # the first one was dropped
    assert stand_in.captures == 6


@torch.no_grad()
def test_moved_weights_are_captured_again(pair):
    _, fast, stand_in = pair
    lq, flows = clip(3)
    fast(lq, flows)
    fast.double().float()
    assert len(fast.graphs) == 0
    fast(lq, flows)
    assert stand_in.captures == 2
    assert len(copy.deepcopy(fast).graphs) == 0


def test_results_are_not_overwritten_and_inputs_are_not_kept():
    cache = GraphCache(StandIn(), "cpu")
    x = torch.ones(2)
    first = cache(lambda a: [a * 2], [x], "double")[0]
    second = cache(lambda a: [a * 2], [x + 1], "double")[0]
    assert (first.tolist(), second.tolist(), x.tolist()) == ([2, 2], [4, 4], [1, 1])
    with torch.inference_mode():
        cache(lambda a: [a + 1], [torch.ones(3)], "add")
    assert cache(lambda a: [a + 1], [torch.zeros(3)], "add")[0].tolist() == [1, 1, 1]


@torch.no_grad()
def test_on_the_cpu_graphs_change_nothing():
    torch.manual_seed(0)
    net, (lq, flows) = tiny().eval(), clip(3)
    fast = accelerate(net, graphs=True)
    assert torch.equal(fast(lq, flows), accelerate(net)(lq, flows))
    assert isinstance(fast, FastKEEP)
    assert fast.graphs is not None
    assert len(fast.graphs) == 0
