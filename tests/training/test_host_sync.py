"""On a clean step the host does not read from the device, nor copy to it: it would wait for all work queued there.

Without a GPU, two views of that: steps on PyTorch's meta device, where a read is impossible, and the real loop on a
CPU, where reads are counted.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import options_and_start
from torch.utils._python_dispatch import TorchDispatchMode

from keep.config.reading import load
from keep.config.registry import build
from keep.config.schema import TrainConfig
from keep.training import trainer
from keep.training.distributed import Arriving
from keep.training.ema import EMA
from keep.training.guards import StepCheck
from keep.training.prefetch import step_batches
from keep.training.run import make_optimizer
from keep.utils.signals import StopRequest

GMFLOW = "{type: GMFlow, random_weights: true}"
QUIET = ["log.interval=100", "log.image_interval=100", "log.save_interval=100", "train.iters=9"]
MORE = {
    1: ["model.gan_start=0", "model.revive=100"],
    2: [f"model.net.flow={GMFLOW}"],
    3: ["model.gan_start=0", f"model.net.flow={GMFLOW}", f"model.flow={GMFLOW}"],
}


def config(stage: int, clips: Path, root: Path, *more: str) -> TrainConfig:
    path, overrides = options_and_start(stage, clips, root, *QUIET, *MORE[stage], "train.grad_clip=1", *more)
    return load(path, overrides, TrainConfig)


class CopiesToMeta(TorchDispatchMode):
    """Counts the copies from the CPU to the meta device."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("_to_copy", "copy_"):
            source = args[1] if name == "copy_" else args[0]
            self.copies[name] += source.device.type == "cpu" and result.device.type == "meta"
        return result


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_step_neither_reads_from_the_device_nor_copies_to_it(stage, clips, tmp_path, monkeypatch) -> None:
    started = trainer.build_run(config(stage, clips, tmp_path))
    (batch,), _ = next(step_batches(started, build(started.config.data.train)))
    started.device = torch.device("meta")
    started.recipe.to("meta")
    started.ema = EMA(started.recipe.net, 0.9)
    groups = started.recipe.parameter_groups()
    started.optimizers = {name: make_optimizer(started, name, own) for name, own in groups.items()}
    batch = {k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    monkeypatch.setattr(torch, "autocast", lambda *_a, **_k: nullcontext())  # it knows no meta device
    check = StepCheck(started, StopRequest())
    with CopiesToMeta() as mode:
        for _ in range(2):
            check.submit(trainer.train_step(started, [batch]).flags)  # any read raises
            started.step += 1
    assert not mode.copies.total()


class Reads(TorchDispatchMode):
    """Counts what would wait for a GPU: reads of tensors, and operators whose output's shape depends on the numbers.

    Attributes:
        steps: the counts of each step: operator or method → number.
        paused: whether nothing is counted.
    """

    OPERATORS = ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "_unique2", "equal")
    METHODS = ("tolist", "numpy", "cpu")

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Counter[str]] = [Counter()]
        self.paused = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in self.OPERATORS or (name.startswith("index") and _has_mask(args)):
            self.count(name)
        return func(*args, **(kwargs or {}))

    def count(self, name: str) -> None:
        if not self.paused:
            self.steps[-1][name] += 1

    def watch(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        """Count the calls of a method, which the dispatcher does not see."""
        real = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, **k: (self.count(name), real(*a, **k))[1])

    def exempt(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        """Count nothing in a function."""
        real = getattr(owner, name)

        def exempted(*args: Any) -> Any:
            self.paused = True
            try:
                return real(*args)
            finally:
                self.paused = False

        monkeypatch.setattr(owner, name, exempted)

    def split(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The batches; loading them is not counted, and each begins a new step."""
        while True:
            self.paused = True
            batch = next(batches, None)
            self.paused = False
            if batch is None:
                return
            self.steps.append(Counter())
            yield batch


def _has_mask(args: Any) -> bool:
    indices = args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ()
    return any(isinstance(i, torch.Tensor) and i.dtype in (torch.bool, torch.uint8) for i in indices)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_loop_reads_nothing_between_two_lines_of_the_log(stage, clips, tmp_path, monkeypatch) -> None:
    reads, load_batches = Reads(), trainer.step_batches
    for name in reads.METHODS:
        reads.watch(monkeypatch, torch.Tensor, name)
    reads.exempt(monkeypatch, Arriving, "read")  # reads the flags of the step before, which have arrived
    monkeypatch.setattr(trainer, "step_batches", lambda *a: reads.split(load_batches(*a)))
    # Without fused, the optimizer counts its steps in tensors on the CPU, and reads them.
    fused = ["train.optim.fused=true", "train.optim_d.fused=true"]
    with reads:
        trainer.train(config(stage, clips, tmp_path, "log.interval=4", "device=cpu", *fused))
    steps = dict(enumerate(reads.steps))
    assert {n for n, counts in steps.items() if n and counts.total()} == {4, 8, 9}
