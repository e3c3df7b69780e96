"""``train.compile`` for real: compiled networks train as eager ones do, past every phase of each recipe.

The fast tests use the backend ``aot_eager``: it traces forward and backward as the default backend does, and runs the
traced operators without generating code for them. The slow ones use the default backend, Inductor, which takes minutes.
"""

from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path

import gpu_runs
import pytest
import ranks
import torch
from tiny_runs import regression

from keep.config.reading import load
from keep.config.schema import TrainConfig
from keep.training import trainer
from keep.training.optimizers import Adam
from keep.utils import weight_files

SGD = ["train.optim.lr=1e-2", "train.optim_d.lr=1e-2", "train.schedule={type: Constant}", "device=cpu"]
STAGES = (1, 2, 3)
FEW = {1: "[net.generator, discriminator]", 2: "[net.kalman_filter, net.code_transformer]", 3: "[discriminator]"}
"""Networks of the fast tests: those that a phase brings in, and in stage I those that run backward twice."""


@pytest.fixture(autouse=True)
def _plain_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Adam would amplify rounding. Graphs of other tests are forgotten before and after."""
    monkeypatch.setattr(Adam, "kind", staticmethod(ranks.sgd))
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compare(stage: int, names: str, clips: Path, root: Path) -> None:
    """Losses and weights of a run with these networks compiled equal those of the same run without."""
    cpu = torch.device("cpu")
    eager, expected = gpu_runs.train(gpu_runs.config(stage, clips, root / "eager", cpu, *SGD))
    options = gpu_runs.config(stage, clips, root / "compiled", cpu, *SGD, f"train.compile={names}")
    before = gpu_runs.start_of(options)
    torch._dynamo.utils.counters.clear()
    records, weights = gpu_runs.train(options)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert gpu_runs.moved_parts(before, weights) == gpu_runs.TRAINED[stage]
    for ours, theirs in zip(gpu_runs.losses(records), gpu_runs.losses(eager), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)
    for key, value in expected.items():
        torch.testing.assert_close(weights[key], value, rtol=1e-4, atol=2e-6, msg=key)


@pytest.mark.parametrize("stage", STAGES)
def test_compiled_networks_train_as_eager_ones_do(stage, clips, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend="aot_eager"))
    compare(stage, FEW[stage], clips, tmp_path)


def test_compiled_networks_of_the_regression_train_as_eager_ones_do(clips, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend="aot_eager"))
    weights = []
    for name, compiled in (("eager", "[]"), ("compiled", "[net.lq_encoder, discriminator]")):
        more = [f"name={name}", f"train.compile={compiled}", "data.val=null", "log.best_metric=null", *SGD]
        torch._dynamo.utils.counters.clear()
        folder = trainer.train(load(regression(clips, tmp_path), more, TrainConfig))
        assert (torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0) == (name == "compiled")
        weights.append(weight_files.load(folder / "training_states/4.state")["recipe"])
    eager, ours = weights
    for key, value in eager.items():
        torch.testing.assert_close(ours[key], value, rtol=1e-4, atol=2e-6, msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_networks_compiled_to_machine_code_train_as_eager_ones_do(stage, clips, tmp_path) -> None:
    compare(stage, gpu_runs.COMPILED[stage], clips, tmp_path)
