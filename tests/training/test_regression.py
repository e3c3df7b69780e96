"""A run of RegressionModel: stopped and resumed, averaged, in bfloat16, validated; its phases in a dry run."""

from pathlib import Path

import pytest
import torch
from tiny_runs import regression, same

from keep import train as keep_train
from keep.config.reading import load
from keep.config.schema import TrainConfig
from keep.training import trainer
from keep.utils import weight_files
from keep.utils.errors import UserError


@pytest.fixture
def options(clips: Path, tmp_path: Path) -> Path:
    return regression(clips, tmp_path)


def run(options: Path, *more: str, resume: str | None = None) -> Path:
    return trainer.train(load(options, list(more), TrainConfig), resume)


def test_a_resumed_run_ends_like_the_uninterrupted_one_and_parts_start_at_their_step(options: Path) -> None:
    folder = run(options)
    end = weight_files.load(folder / "training_states/4.state")
    encoder = "lq_encoder.blocks.0.weight"
    steps = {n: weight_files.load(folder / f"models/net_{n}.pth") for n in (1, 2, 3, 4)}
    assert torch.equal(steps[1]["params"][encoder], steps[2]["params"][encoder])
    assert not torch.equal(steps[2]["params"][encoder], steps[3]["params"][encoder])
    assert not torch.equal(steps[4]["params"][encoder], steps[4]["params_ema"][encoder])
    assert steps[4]["arch"]["type"] == "CodeFormer"
    for step in (1, 2, 3):
        run(options, resume=str(folder / f"training_states/{step}.state"))
        again = weight_files.load(folder / "training_states/4.state")
        assert all(same(end[k], again[k]) for k in end.keys() - {"options"}), step


def test_bfloat16_and_a_start_from_the_weights_of_another_run(options: Path, caplog) -> None:
    weights = run(options) / "models/net_4.pth"
    start = [f"pretrained.net={weights}", "name=second"]
    assert run(options, *start, "train.amp=bf16").name == "second"
    with pytest.raises(UserError, match=r"pretrained\.net"):
        run(options, *start, "model.net.channels=16")


def test_a_dry_run_makes_a_step_of_every_phase(options: Path, capsys) -> None:
    assert keep_train.main(["-opt", str(options), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    for phase in ("start (step 0)", "adversarial (step 1)", "lq_encoder (step 2)", "dry run passed"):
        assert phase in printed
