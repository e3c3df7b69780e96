"""scripts/gpu_kit/train.py: a schedule that fits into the time."""

import json
import time

import pytest
from tiny_runs import options, options_and_start

from keep.config.reading import load
from keep.config.schema import TrainConfig
from keep.utils import weight_files
from scripts.gpu_kit import train


def overrides(words: list[str]) -> list[str]:
    return [word for change in words for word in ("--set", change)]


def test_the_schedule_keeps_its_course(clips, tmp_path) -> None:
    path, words = options(1, clips, tmp_path, "train.iters=1000", "model.gan_start=400", "train.warmup=50")
    words.append("train.schedule={type: MultiStep, milestones: [500, 900]}")
    config = load(path, words, TrainConfig)
    changes, total = train.fit(config, {"start": (0, 0.1), "adversarial": (400, 0.2)}, 32.0)
    assert total == 200  # 40 % of the steps at 0.1 s, 60 % at 0.2 s
    fitted = load(path, [*words, *changes], TrainConfig)
    assert (fitted.train.iters, fitted.train.warmup, fitted.model.options["gan_start"]) == (200, 10, 80)
    assert tuple(fitted.train.schedule.options["milestones"]) == (100, 180)
    assert fitted.log.save_interval == train.SAVE_SECONDS / 0.2
    assert train.fit(config, {"start": (0, 0.1), "adversarial": (400, 0.2)}, -5.0)[1] == 1


def test_a_phase_after_the_last_step_counts_nothing(clips, tmp_path) -> None:
    path, words = options(1, clips, tmp_path, "train.iters=100", "model.gan_start=400")
    changes, total = train.fit(load(path, words, TrainConfig), {"start": (0, 0.1), "adversarial": (400, 9.0)}, 10.0)
    assert total == 100
    assert load(path, [*words, *changes], TrainConfig).model.options["gan_start"] == 400


@pytest.mark.parametrize("stage", [1, 2])
def test_an_options_file_is_trained_in_its_time(stage, clips, tmp_path, monkeypatch) -> None:
    phase = "model.gan_start=500" if stage == 1 else "model.filter_start=500"
    path, words = options_and_start(stage, clips, tmp_path, "device=cpu", "train.iters=1000", phase)
    monkeypatch.setattr(train, "START", time.monotonic())
    line = [str(path), "--seconds", "4", "--out", str(tmp_path / "out"), *overrides(words)]
    assert train.main(line) == 0
    (row,) = json.loads((tmp_path / "out/train.json").read_text(encoding="utf-8"))["rows"]
    assert row["end"].startswith("finished after")
    weights = weight_files.load(tmp_path / f"stage{stage}/models/net_latest.safetensors")
    assert int(weights["step"]) == row["steps"] >= 1
    assert {"s a step, start", "s a step, adversarial" if stage == 1 else "s a step, filter"} <= row.keys()
