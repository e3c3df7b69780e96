"""The paths that scripts/bench/inference.py compares, and how each is measured."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from keep.archs.keep import KEEP, KalmanState, KEEPOutput
from keep.inference.fast import keep_freed_memory
from keep.inference.streaming import stream
from scripts.bench.common import Clock, peak_of_memory, say, start_of_memory


@dataclass
class Variant:
    """One path to measure, and its results.

    Attributes:
        name: its name in the tables.
        net: its network.
        keep_memory: whether the process keeps freed memory while this path runs.
        states: outputs and states of the complete clip.
        clip_seconds: time of the complete clip.
        clip_memory: peak memory during the complete clip, above that before it (bytes).
        flop: floating-point operations of a frame.
        state: the state after the first frame.
        seconds: of one frame, one value a round.
        plain: those of the plain path in the same rounds.
        parts: part → seconds, one a round; empty for paths whose parts cannot be told apart.
    """

    name: str
    net: KEEP
    keep_memory: bool = False
    states: KEEPOutput | None = None
    clip_seconds: float = 0.0
    clip_memory: float = 0.0
    flop: float = 0.0
    state: KalmanState | None = None
    seconds: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=dict)


class ForcedCodes(nn.Module):
    """Replaces T_Q: records the codes that T_Q would choose, and returns the logits of another run.

    With random weights, one code that flips by rounding changes all later frames. Two runs can only be compared frame
    by frame while their codes are the same.
    """

    def __init__(self, code_transformer: nn.Module, logits: Tensor) -> None:
        super().__init__()
        self.inner, self.logits = code_transformer, logits
        self.codes: list[Tensor] = []

    def forward(self, z: Tensor) -> Tensor:
        self.codes.append(self.inner(z).argmax(-1))
        return self.logits[:, len(self.codes) - 1]


def measure_clip(variant: Variant, lq: Tensor, reference: KEEPOutput | None) -> None:
    """Measure the complete clip: time, memory, states. With ``reference``, its codes are used."""
    say(f"complete clip of {lq.shape[1]} frames: {variant.name}")
    net, clock = variant.net, Clock(lq.device)
    keep_freed_memory(False)
    if variant.keep_memory:
        keep_freed_memory()
    own = net.code_transformer
    forced = None
    if reference is not None:
        forced = net.code_transformer = ForcedCodes(own, reference.logits)  # type: ignore[assignment]
    before = start_of_memory(lq.device)
    with clock.part("clip"):
        variant.states = net(lq, return_states=True)
    variant.clip_memory = peak_of_memory(lq.device) - before
    variant.clip_seconds = clock.seconds["clip"]
    assert variant.states is not None
    if forced is not None:
        net.code_transformer = own
        variant.states.codes = torch.stack(forced.codes, dim=1)
    _, variant.state = net.step(variant.states.z_obs[:, 0], variant.states.gains[:, 0], first_features(variant, lq))


def first_features(variant: Variant, lq: Tensor) -> dict[int, Tensor]:
    return {scale: f[:, 0] for scale, f in variant.net.observe(lq[:, :1])[1].items()}


def measure_frame(variant: Variant, lq: Tensor) -> float:
    """Seconds of restoring the second frame, measured as a whole.

    The gains of a clip are computed from all frames at once; one frame's share is counted.
    """
    clock = Clock(lq.device)
    keep_freed_memory(variant.keep_memory)
    for _, share, work in frame_work(variant, lq):
        with clock.part("frame", share):
            work()
    return clock.seconds["frame"]


def measure_parts(variant: Variant, lq: Tensor) -> None:
    """Restore the second frame again and record the seconds of its parts, by hooks on the modules."""
    net, clock = variant.net, Clock(lq.device)
    keep_freed_memory(variant.keep_memory)
    parts: dict[str, list[nn.Module]] = {
        "E_H": [net.hq_encoder],
        "T_Q": [net.code_transformer],
        "generator": [net.generator],
        "CFT": list(net.cft.values()),
        "CFA": list(net.cfa.values()),
    }
    with clock.watch(parts):
        for name, share, work in frame_work(variant, lq):
            with clock.part(name, share):
                work()
    seconds = clock.seconds  # CFT and CFA run inside the generator
    seconds["decoder"] = seconds.pop("generator") - seconds["CFT"] - seconds["CFA"]
    for name, value in seconds.items():
        variant.parts.setdefault(name, []).append(value)


def clip_rate(net: KEEP, lq: Tensor, rounds: int) -> float:
    """Frames a second of complete clips, the best of the rounds after one to warm up."""
    return best_rate(lambda: net(lq), lq, rounds)


def stream_rate(net: KEEP, lq: Tensor, rounds: int) -> float:
    """Frames a second of a single stream of windows of 8 frames, as ``keep.restore`` runs it."""
    first = lq[:1]
    return best_rate(lambda: deque(stream(net, first.unbind(1)), maxlen=0), first, rounds)


def best_rate(work: Callable[[], object], lq: Tensor, rounds: int) -> float:
    times = []
    for _ in range(rounds + 1):
        clock = Clock(lq.device)
        with clock.part("clip"):
            work()
        times.append(clock.seconds["clip"])
    return lq.shape[0] * lq.shape[1] / min(times[1:])


def frame_work(variant: Variant, lq: Tensor) -> list[tuple[str, float, Callable[[], object]]]:
    """The parts of a frame's work: name, the frame's share of its time, and a function that does it."""
    net, states = variant.net, variant.states
    assert states is not None
    inputs: dict[str, Any] = {}

    def observe() -> None:
        z, f = net.observe(lq[:, 1:2])
        inputs["z"], inputs["features"] = z[:, 0], {scale: feature[:, 0] for scale, feature in f.items()}

    def flow() -> None:
        inputs["flow"] = net.estimate_flows(lq[:, :2])[:, 0]

    def gain() -> None:
        inputs["gain"] = net.kalman_filter(states.z_obs)[:, 1]

    def step() -> None:
        net.step(inputs["z"], inputs["gain"], inputs["features"], flow=inputs["flow"], state=variant.state)

    return [("E_L", 1, observe), ("flow", 1, flow), ("gain", 1 / lq.shape[1], gain), ("step", 1, step)]


def count_flops(variant: Variant, lq: Tensor) -> float:
    """Floating-point operations of a frame, 2 for a multiply-add. It also warms this path up."""
    total = 0.0
    for _, share, work in frame_work(variant, lq):
        with FlopCounterMode(display=False) as counter:
            work()
        total += share * counter.get_total_flops()
    return total
