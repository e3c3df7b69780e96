"""Two processes: the result of one with twice the clips; both stop together, fail together, and get one score."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import ranks
import torch
from tiny_runs import options_and_start, regression, same

from keep.config.reading import load
from keep.config.registry import build
from keep.config.schema import TrainConfig
from keep.training import checkpoint, trainer
from keep.training.distributed import Ranks
from keep.training.joining import processes
from keep.training.optimizers import Adam
from keep.training.records import RunLog
from keep.training.validation import Validation, validate
from keep.utils import weight_files
from keep.utils.errors import UserError
from keep.utils.signals import StopRequest

SGD = ["train.optim.lr=1e-2", "train.optim_d.lr=1e-2", "train.warmup=0", "train.schedule={type: Constant}"]
# On a CPU, batch norm uses each process's own statistics.
ALIKE = {
    1: ["model.discriminator.norm=instance", "model.revive=2", "model.gan_start=1"],
    2: ["model.filter_start=1", "model.checkpoint_encoder=true"],
    3: ["model.gan_start=1", "model.checkpoint_decoder=true"],
}
REGRESSION = [
    "train.optim.lr=1e-2", "train.optim_d.lr=1e-2", "train.schedule={type: Constant}", "data.val=null",
    "log.best_metric=null",
]  # fmt: skip
STAGES = (1, 2, 3)
FILTER = [
    "model.filter_start=2", "train.optim={type: AdamW, weight_decay: 0.1}", "train.lr_scale={kalman_filter: 0.5}",
    "train.warmup=0", "data.clips_per_step=4", "data.clips_at_once=1", "train.ema=0",
    "log.save_interval=1", "log.keep_last=9",
]  # fmt: skip


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, clips: Path) -> dict[str, Any]:
    """All jobs of two processes, in one start of them; ``results``: name of the job → its result in each process."""
    folder = tmp_path_factory.mktemp("pair")
    val = f"data.val={{type: VideoClips, root: {clips}, size: 32, max_frames: 3}}"
    scored = [val, "val.metrics=[PSNR]", "val.interval=3"]
    jobs: dict[str, dict[str, Any]] = {}

    def add(name: str, stage: int, *more: str, at: str, **job: Any) -> None:
        path, overrides = options_and_start(stage, clips, folder / at)
        jobs[name] = {
            "options": str(path),
            "overrides": [*overrides, "device=cpu", "data.clips_per_step=2", *more],
            **job,
        }

    for name in ("uninterrupted", "resumed"):
        resume = str(folder / "filter/stage2/training_states/1.state") if name == "resumed" else None
        add(f"{name} filter", 2, *FILTER, at="filter", resume=resume)
    for stage in STAGES:
        add(f"alike {stage}", stage, *SGD, *ALIKE[stage], "train.iters=3", at=f"two{stage}", sgd=True)
    path = str(regression(clips, folder / "two_regression"))
    jobs["regression"] = {"options": path, "overrides": ["data.clips_per_step=2", *REGRESSION], "sgd": True}
    add("uninterrupted", 1, "model.revive=2", *scored, at="uninterrupted")
    add("stopped", 1, "model.revive=2", *scored, at="broken", stop_at=3)
    add("resumed", 1, "model.revive=2", *scored, "data.workers=1", at="broken", resume="auto")
    add("stopped in validation", 1, *scored, at="validation", stop_in_validation=True)
    add("nan", 3, at="nan", nan_at=2)
    quiet = ["log.interval=100", "log.image_interval=100", "log.save_interval=100", "train.iters=6"]
    add("nan read later", 3, *quiet, at="nan_later", nan_at=3)
    add("stopped later", 1, *quiet, at="stopped_later", stop_at=3)
    several = ["data.clips_per_step=4", "data.clips_at_once=1"]
    add("skip", 1, "train.on_nonfinite=skip", *several, "model.gan_start=0", at="skip", nan_at=2)
    add("other options", 1, at="other", own=["train.optim.betas=[0.5, 0.99]"])
    add("worker killed", 1, "data.workers=1", "train.iters=40", at="worker", worker_dies_at=2)
    add("killed", 1, *quiet, at="killed", dies_at=2)
    results = dict(zip(jobs, ranks.run_pair(list(jobs.values()), folder), strict=True))
    return {"results": results, "folder": folder, "jobs": jobs}


def final(folder: Path, step: int = 4) -> dict[str, Any]:
    return weight_files.load(folder / f"training_states/{step}.state")


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_give_the_result_of_one_with_twice_the_clips(pair, clips, tmp_path, stage, monkeypatch) -> None:
    monkeypatch.setattr(Adam, "kind", staticmethod(ranks.sgd))
    path, overrides = options_and_start(stage, clips, tmp_path)
    more = [*overrides, "device=cpu", *SGD, *ALIKE[stage], "train.iters=3", "data.clips_per_step=2"]
    one = final(trainer.train(load(path, more, TrainConfig)), 3)
    two = final(pair["folder"] / f"two{stage}/stage{stage}", 3)
    start = trainer.build_run(load(path, more, TrainConfig))
    before = checkpoint.recipe_state(start.recipe)
    moved = {k for k, v in one["recipe"].items() if not torch.equal(v, before[k])}
    for part in {
        1: ("net.encoder", "discriminator"),
        2: ("net.lq_", "net.code_", "net.kalman_filter"),
        3: ("net.cft", "discriminator"),
    }[stage]:
        assert any(k.startswith(part) for k in moved)
    for key in moved:
        if one["recipe"][key].is_floating_point():
            torch.testing.assert_close(two["recipe"][key], one["recipe"][key], rtol=1e-4, atol=2e-6, msg=key)
    assert two["position"] == one["position"] == 6


def test_two_processes_give_the_regression_of_one_with_twice_the_clips(pair, clips, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Adam, "kind", staticmethod(ranks.sgd))
    options = load(regression(clips, tmp_path), ["data.clips_per_step=2", *REGRESSION], TrainConfig)
    before = checkpoint.recipe_state(trainer.build_run(options).recipe)
    one = final(trainer.train(options))
    two = final(pair["folder"] / "two_regression/experiments/regression")
    moved = {k for k, v in one["recipe"].items() if not torch.equal(v, before[k])}
    for part in ("net.lq_encoder", "net.generator", "discriminator"):
        assert any(k.startswith(part) for k in moved), part
    for key in moved:
        if one["recipe"][key].is_floating_point():
            torch.testing.assert_close(two["recipe"][key], one["recipe"][key], rtol=1e-4, atol=2e-6, msg=key)


def test_a_signal_to_one_process_stops_both_after_the_same_step(pair) -> None:
    assert pair["results"]["stopped"][0].startswith("stopped saved at step 3")
    assert pair["results"]["stopped"][1].startswith("stopped saved at step 3 after SIGTERM")


def test_a_signal_to_one_process_in_validation_stops_both(pair) -> None:
    results = pair["results"]["stopped in validation"]
    assert results == ["stopped saved at step 3, before its validation, after a signal"] * 2


def test_both_resume_to_the_weights_of_the_uninterrupted_run(pair) -> None:
    assert all(t.startswith("done") for t in pair["results"]["resumed"])
    uninterrupted, resumed = final(pair["folder"] / "uninterrupted/stage1"), final(pair["folder"] / "broken/stage1")
    for key in ("recipe", "ema", "optimizers", "scores", "processes"):
        assert same(uninterrupted[key], resumed[key]), key


def test_a_part_without_gradient_neither_trains_nor_decays_and_then_starts_fresh_in_two_processes(pair) -> None:
    assert all(t.startswith("done") for name in ("uninterrupted", "resumed") for t in pair["results"][f"{name} filter"])
    folder = pair["folder"] / "filter/stage2"
    first, second = (weight_files.load(folder / f"training_states/{step}.state") for step in (1, 2))
    (aside,) = folder.glob("left_*")  # of the uninterrupted run, from step 2 on
    uninterrupted, resumed = weight_files.load(aside / "4.state"), final(folder)
    for key in ("recipe", "optimizers", "processes"):
        assert same(uninterrupted[key], resumed[key]), key

    def moved(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
        changed = (k for k, v in before["recipe"].items() if not torch.equal(v, after["recipe"][k]))
        return {k.split(".")[1] for k in changed}

    assert moved(first, second) == {"lq_encoder", "code_transformer"}
    assert moved(second, resumed) == {"lq_encoder", "code_transformer", "kalman_filter"}
    for state, count in ((second, 0), (resumed, 2)):
        optimizer = state["optimizers"]["net"]
        own = [optimizer["state"].get(i) for i in optimizer["param_groups"][1]["params"]]
        assert {0 if s is None else int(s["step"]) for s in own} == {count}


def test_validation_shared_over_processes_gives_the_numbers_of_one(pair, tmp_path) -> None:
    job = pair["jobs"]["uninterrupted"]
    config = load(job["options"], job["overrides"], TrainConfig)
    run = trainer.build_run(config, start=False)
    state = pair["folder"] / "uninterrupted/stage1/training_states/4.state"
    checkpoint.resume(run, state)  # in one process the same options are the same run
    records = RunLog(tmp_path)
    scores = validate(run, Validation.build(config, build(config.data.val)), records, StopRequest())
    records.close()
    assert scores["PSNR"] == run.scores[4]
    assert set(run.scores) == {3, 4}


def test_a_nan_in_one_process_stops_both_with_its_term_and_clip(pair) -> None:
    first, second = pair["results"]["nan"]
    assert first == second
    assert "step 2: not finite: loss term pixel of disc" in first
    assert "in process 1" in first


def test_a_nan_that_is_read_a_step_later_stops_both_with_its_own_step_and_nothing_is_saved(pair) -> None:
    first, second = pair["results"]["nan read later"]
    assert first == second
    assert first.startswith("error step 3: not finite: loss term pixel of disc")
    assert "in process 1" in first
    assert "in process 0" not in first
    assert not list((pair["folder"] / "nan_later/stage3").rglob("*.state"))
    assert not list((pair["folder"] / "nan_later/stage3").rglob("*.pth"))


def test_a_signal_that_is_read_a_step_later_stops_both_after_the_same_step(pair) -> None:
    assert all(t.startswith("stopped saved at step 4 after") for t in pair["results"]["stopped later"])
    assert final(pair["folder"] / "stopped_later/stage1", 4)["step"] == 4


def test_a_step_with_a_nan_is_skipped_in_both_and_counted(pair) -> None:
    assert all(t.startswith("error step 4") or t.startswith("done") for t in pair["results"]["skip"])
    state = final(pair["folder"] / "skip/stage1", 4)
    assert state["skipped"] == (3, 3)  # the loss stays NaN from step 2 on
    records = [json.loads(line) for line in (pair["folder"] / "skip/stage1/log.jsonl").read_text().splitlines()]
    assert records[-1]["skipped"] == 3
    assert all(torch.isfinite(v).all() for v in state["recipe"].values() if v.is_floating_point())


def test_processes_that_are_started_differently_refuse_in_one_line(pair) -> None:
    first, second = pair["results"]["other options"]
    assert first == second
    assert first == (
        "error rank 1 of 2 was started with other options than rank 0: train.optim.betas is [0.5, 0.99], not [0.9, "
        "0.99]. Start all processes with the same options and code"
    )
    assert not (pair["folder"] / "other/stage1").exists()


def test_a_killed_worker_of_one_process_is_named_in_both(pair) -> None:
    first, second = pair["results"]["worker killed"]
    assert re.fullmatch(
        r"error a data worker \(process \d+\) was ended by the system \(Killed\), .*data.workers.*", second
    )
    assert re.fullmatch(r"error rank 1 of 2 \(process \d+ on .*\) ended: (.*)", first)
    assert first.endswith(second.removeprefix("error"))


def test_a_killed_process_is_named_in_the_other(pair) -> None:
    first, second = pair["results"]["killed"]
    assert second == "killed"
    assert re.fullmatch(r"error rank 1 of 2 \(process \d+ on .*\) was killed, .*memory.* --auto-resume", first)
    assert not list((pair["folder"] / "killed/stage1").rglob("*.state"))
    assert not (pair["folder"] / "killed/.stage1.lock").exists()


def test_a_launcher_s_variables_are_checked(monkeypatch, clips, tmp_path) -> None:
    config = load(*options_and_start(1, clips, tmp_path, "device=cpu"), TrainConfig)
    request = StopRequest()
    with processes(config, request) as alone:
        assert alone == Ranks()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="must set RANK, WORLD_SIZE, LOCAL_RANK"), processes(config, request):
        pass
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("MASTER_PORT", "0")
    with pytest.raises(UserError, match=r"MASTER_PORT is 0.*--standalone"), processes(config, request):
        pass
    monkeypatch.setenv("RANK", "2")
    with (
        pytest.raises(UserError, match="RANK=2 must be at least 0 and less than WORLD_SIZE=2"),
        processes(config, request),
    ):
        pass
