"""Adam in one kernel: the default on CUDA, and the same training as in many."""

from types import SimpleNamespace

import pytest
import torch
from tiny_runs import options_and_start

from keep.config.reading import load
from keep.config.registry import build
from keep.config.schema import TrainConfig
from keep.training import checkpoint, trainer
from keep.training.optimizers import Adam, AdamW
from keep.training.prefetch import step_batches


@pytest.mark.parametrize(("option", "cuda", "expected"), [
    (None, True, True), (None, False, None), (False, True, None), (True, False, True),
])  # fmt: skip
@pytest.mark.parametrize("kind", [Adam, AdamW])
def test_it_is_the_default_on_cuda(kind, option, cuda, expected, monkeypatch) -> None:
    optimizer = kind(fused=option)
    monkeypatch.setattr(optimizer, "kind", lambda groups, **options: options)
    assert optimizer([{"params": [SimpleNamespace(is_cuda=cuda)]}])["fused"] is expected


def started(clips, root, fused: bool, *more: str):
    options = [f"train.optim.fused={fused}", f"train.optim_d.fused={fused}", "train.grad_clip=0.5", "model.gan_start=0"]
    path, overrides = options_and_start(1, clips, root, *options, *more)
    run = trainer.build_run(load(path, overrides, TrainConfig))
    (batch,), _ = next(step_batches(run, build(run.config.data.train)))
    return run, batch


@pytest.mark.parametrize("scale", [2.0**8, 2.0**120])
def test_an_overflow_of_float16_skips_a_step_and_clipping_stays(scale, clips, tmp_path) -> None:
    """The gradients of float16 overflow at the larger scale; PyTorch's scaler leaves the skip to the fused kernel."""
    runs = [started(clips, tmp_path, fused, "train.amp=fp16") for fused in (True, False)]
    for run, batch in runs:
        run.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        before = [p.detach().clone() for p in run.recipe.net.parameters()]
        trainer.train_step(run, [batch])
        run.step += 1
        moved = [not torch.equal(a, b) for a, b in zip(before, run.recipe.net.parameters(), strict=True)]
        assert any(moved) == (scale < 2**100)
        assert run.scaler.get_scale() == (scale if scale < 2**100 else scale / 2)
        run.scaler.update(2.0**10)
        trainer.train_step(run, [batch])
    (fused, _), (plain, _) = runs
    for name, optimizer in fused.optimizers.items():
        assert optimizer.defaults["fused"]
        steps = {float(s["step"]) for s in optimizer.state.values()}
        assert steps == {float(s["step"]) for s in plain.optimizers[name].state.values()}
    expected = plain.recipe.state_dict()
    for key, value in fused.recipe.state_dict().items():
        torch.testing.assert_close(value, expected[key], atol=2e-5, rtol=0)


@pytest.mark.parametrize("first", [True, False])
def test_a_run_resumes_with_the_other_kind(first, clips, tmp_path) -> None:
    run, batch = started(clips, tmp_path, first)
    trainer.train_step(run, [batch])
    run.step += 1
    checkpoint.save(run)
    other, _ = started(clips, tmp_path, not first)
    checkpoint.resume(other, run.folder / "training_states/1.state")
    for either in (run, other):
        trainer.train_step(either, [batch])
    expected = run.recipe.state_dict()
    for key, value in other.recipe.state_dict().items():
        torch.testing.assert_close(value, expected[key], atol=1e-6, rtol=0)
