"""The step with explicit states gives what the streamer gives, frame by frame."""

import pytest
import torch
from exported_networks import lively
from networks import PATCHES, clip

from keep.flow.gmflow import GMFlow
from keep.inference.exported.modules import exportable
from keep.inference.exported.step import Step
from keep.inference.streaming import Streamer


def run(step: Step, lq: torch.Tensor, flows: torch.Tensor | None, fidelity: float = 1.0) -> list[dict]:
    """All outputs of every frame, by name."""
    ports = {port.name: port for port in step.inputs}
    states = {name: port.tensor(len(lq)) for name, port in ports.items() if name.startswith("state_")}
    frames = []
    for t in range(lq.shape[1]):
        given = {"frame": lq[:, t], "fidelity": torch.tensor(fidelity), **states}
        if flows is not None:
            given["flow"] = flows[:, t - 1] if t else torch.zeros_like(flows[:, 0])
        values = step(*(given[name] for name in ports))
        found = dict(zip((port.name for port in step.outputs), values, strict=True))
        states = {name: found[name.replace("state_", "next_")] for name in states}
        frames.append(found)
    return frames


@pytest.mark.parametrize("temporal", ["causal", "clip"])
@pytest.mark.parametrize("own_flow", [False, True])
@torch.no_grad()
def test_a_step_is_the_streamers_frame(temporal, own_flow):
    """Twelve frames: the gains of a clip network then depend on seven earlier frames, before on fewer."""
    net = lively(temporal=temporal, flow=GMFlow(random_weights=True))
    lq, flows = clip(12, batch=2)
    given = None if own_flow else flows
    expected = Streamer(net, w=0.7).push(lq, given)
    found = run(Step(exportable(net), own_flow=own_flow), lq, given, fidelity=0.7)
    for t, (frame, outputs) in enumerate(zip(expected, found, strict=True)):
        torch.testing.assert_close(outputs["restored"], frame.output, atol=1e-4, rtol=0)
        assert outputs["next_count"].tolist() == [t + 1] * 2
        if t:
            torch.testing.assert_close(outputs["gain"], frame.gain, atol=1e-5, rtol=0)


@torch.no_grad()
def test_clips_of_a_batch_may_begin_at_different_times():
    """One clip begins while the other is at its fourth frame: each is restored as if it were alone."""
    net = lively(temporal="clip")
    lq, flows = clip(6, batch=2)
    step = Step(exportable(net), context=3)
    names = [port.name for port in step.inputs]
    alone = run(step, lq[:1], flows[:1])
    states = {name: alone[2][name.replace("state_", "next_")] for name in names if name.startswith("state_")}
    other = run(step, lq[1:, :1], flows[1:, :0].new_zeros(1, 1, 2, 32, 32))[0]
    both = {name: torch.cat([value, torch.full_like(value, 7)]) for name, value in states.items()}
    both["state_count"][1] = 0  # the other states of a new clip are not used
    given = {"frame": lq[[0, 1], [3, 0]], "flow": flows[[0, 1], [2, 0]], "fidelity": torch.ones(()), **both}
    found = dict(zip((port.name for port in step.outputs), step(*(given[name] for name in names)), strict=True))
    torch.testing.assert_close(
        found["restored"], torch.cat([alone[3]["restored"], other["restored"]]), atol=1e-4, rtol=0
    )
    assert found["next_count"].tolist() == [4, 1]


@torch.no_grad()
def test_shapes_and_types_are_those_of_the_ports():
    step = Step(exportable(lively(temporal="causal", **PATCHES), "float16"))
    for port, value in zip(step.outputs, step(*step.example(3)), strict=True):
        assert (tuple(value.shape), value.dtype) == (port.sized(3), getattr(torch, port.dtype)), port.name
