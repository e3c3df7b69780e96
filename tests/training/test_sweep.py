"""Sweeps: ranges and choices, trials with paired seeds, failures, and a sweep that goes on after a stop."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from keep import sweep as keep_sweep
from keep.config.reading import load
from keep.config.schema import TrainConfig
from keep.training.sweep import search
from keep.training.sweep.params import Score, parse_param
from keep.utils.errors import UserError


@pytest.mark.parametrize(
    ("text", "low", "high", "log", "whole"),
    [
        ("train.optim.lr=log:1e-5..1e-3", 1e-5, 1e-3, True, False),
        ("train.ema=0.1..0.9", 0.1, 0.9, False, False),
        ("train.warmup=1..8", 1, 8, False, True),
        ("a=-2..1", -2, 1, False, True),
    ],
)
def test_ranges(text: str, low: float, high: float, log: bool, whole: bool) -> None:
    param = parse_param(text)
    assert (param.low, param.high, param.log, param.whole) == (low, high, log, whole)


def test_choices_are_yaml() -> None:
    assert parse_param("a.b=[Adam, 1e-3, [1, 2], null]").choices == ("Adam", "0.001", "[1, 2]", "null")


@pytest.mark.parametrize(
    "text", ["a", "a=", "=1..2", "a=1", "a=2..1", "a=log:0..1", "a=1...2", "a=[]", "a=[1", "a=x..y"]
)
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--param"):
        parse_param(text)


def test_the_score_is_the_last_of_a_metric_and_a_mean_of_a_loss(tmp_path: Path) -> None:
    records = [{"step": n, "loss/pixel": float(n)} for n in range(20)]
    records += [{"step": n, "val/PSNR (ema)": 20.0 + n} for n in (10, 20)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    assert Score("PSNR", "val/PSNR", True).read(tmp_path) == 40
    assert Score("loss/pixel", "loss/pixel", False).read(tmp_path) == 14.5
    assert Score("loss/gan", "loss/gan", False).read(tmp_path) is None


def test_a_metric_that_was_not_finite_once_does_not_fail_the_last_value(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1, "val/PSNR": null}\n{"step": 2, "val/PSNR": 30.0}\n')
    assert Score("PSNR", "val/PSNR", True).read(tmp_path) == 30


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """(*words) → exit status of a sweep of tiny's rate with a stand-in for the training: the loss is lr + seed."""
    pytest.importorskip("optuna", reason="needs the extra sweep")
    calls: list[tuple[str, float, int]] = []

    def train(args: Any, values: dict[str, Any], folder: Path, name: str, seed: int) -> tuple[int, str]:
        calls.append((name, values["train.optim.lr"], seed))
        if len(calls) == run.stop_at:
            return 75, "stopped"
        if len(calls) == run.fail_at:
            return 2, "error: the loss is not finite"
        (folder / "runs" / name).mkdir(parents=True, exist_ok=True)
        record = {"step": 1, "loss/pixel": values["train.optim.lr"] + seed}
        (folder / "runs" / name / "log.jsonl").write_text(json.dumps(record) + "\n")
        return 0, ""

    def run(*words: str) -> int:
        return keep_sweep.main(
            ["-opt", "tiny/stage1.yml", "--param", "train.optim.lr=log:1e-3..1e-1", "--metric", "loss/pixel",
             "-o", str(tmp_path / "out"), *words]
        )  # fmt: skip

    run.stop_at = run.fail_at = 0
    run.calls = calls
    monkeypatch.setattr(search, "train", train)
    return run


def results(tmp_path: Path) -> list[dict[str, Any]]:
    return json.loads((tmp_path / "out/results.json").read_text())["trials"]


def test_every_trial_has_the_same_seeds_and_the_best_is_first(sweep: Any, tmp_path: Path) -> None:
    assert sweep("--trials", "4", "--seeds", "0", "1") == 0
    assert [seed for _, _, seed in sweep.calls] == [0, 1] * 4
    rows = results(tmp_path)
    assert [row["mean"] for row in rows] == sorted(row["mean"] for row in rows)
    best = rows[0]
    assert best["mean"] == pytest.approx(best["params"]["train.optim.lr"] + 0.5)
    assert best["low"] <= best["mean"] <= best["high"]
    assert (
        load(tmp_path / "out/best.yml", [], TrainConfig).train.optim.options["lr"] == best["params"]["train.optim.lr"]
    )
    assert (tmp_path / "out/sweep.png").stat().st_size > 1000
    assert "| best |" in (tmp_path / "out/table.md").read_text()


def test_passwords_are_not_stored(sweep: Any, tmp_path: Path) -> None:
    words = ("--set", "log.trackers=[{type: MLflow, uri: 'https://me:secretword@server'}]", "--trials", "1")
    assert sweep(*words) == 0
    files = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert {file.name for file in files} >= {"study.db", "results.json", "best.yml"}
    assert not any(b"secretword" in file.read_bytes() for file in files)
    assert sweep(*words) == 0, "the same sweep"


def test_a_stopped_sweep_goes_on_as_if_it_had_not_stopped(sweep: Any, tmp_path: Path) -> None:
    assert sweep("--trials", "3", "--seeds", "0", "1") == 0
    expected, before = results(tmp_path), list(sweep.calls)
    (tmp_path / "out").rename(tmp_path / "first")
    sweep.calls.clear()
    sweep.stop_at = 4  # the second seed of the second trial
    assert sweep("--trials", "3", "--seeds", "0", "1") == 75
    assert not (tmp_path / "out/results.json").exists()
    sweep.calls.clear()
    sweep.stop_at = 0
    assert sweep("--trials", "3", "--seeds", "0", "1") == 0
    assert sweep.calls == before[2:]
    assert results(tmp_path) == expected


def test_a_failed_trial_is_recorded_and_the_others_go_on(sweep: Any, tmp_path: Path) -> None:
    sweep.fail_at = 2
    assert sweep("--trials", "3") == 0
    rows = results(tmp_path)
    assert [row["state"] for row in rows] == ["complete", "complete", "fail"]
    assert rows[-1]["reason"] == "error: the loss is not finite"
    assert "fail: error: the loss is not finite" in (tmp_path / "out/table.md").read_text()


def test_a_poor_trial_is_pruned_after_a_seed(sweep: Any, tmp_path: Path) -> None:
    assert sweep("--trials", "10", "--seeds", "0", "1") == 0
    pruned = [row for row in results(tmp_path) if row["state"] == "pruned"]
    assert pruned
    assert all(len(row["scores"]) == 1 for row in pruned)


def test_another_sweep_in_the_folder_is_refused(sweep: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("--trials", "1") == 0
    assert sweep("--trials", "1", "--seeds", "5") == 2
    assert "holds another sweep (different: seeds): choose another folder with -o" in capsys.readouterr().err


def test_an_edited_options_file_is_another_sweep(
    sweep: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.yml"
    own.write_text("_base_: tiny/stage1.yml\n")
    assert sweep("--trials", "1", "-opt", str(own)) == 0
    own.write_text("_base_: tiny/stage1.yml\ntrain: {warmup: 3}\n")
    assert sweep("--trials", "1", "-opt", str(own)) == 2
    assert "holds another sweep (different: options)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name the options to vary"),
        (["--param", "train.optim.lrr=0.1..0.2"], "train.optim.lrr: unknown option; did you mean 'lr'?"),
        (["--param", "train.optim.lr=-1..0.2"], "train.optim.lr"),
        (["--param", "train.optim.type=[Adam, Adamm]"], "did you mean 'Adam'"),
        (["--param", "seed=0..5"], "seed cannot vary here"),
        (["--param", "train.warmup=0..5"], "name a loss to compare, --metric loss/pixel"),
        (["--param", "train.warmup=0..5", "--metric", "PSNR"], "--metric PSNR: no such metric"),
    ],
)
def test_mistakes_are_reported_before_anything_is_written(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna", reason="needs the extra sweep")
    assert keep_sweep.main(["-opt", "tiny/stage1.yml", "-o", str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_optuna_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert keep_sweep.main(["-opt", "tiny/stage1.yml", "--param", "train.warmup=0..5"]) == 2
    assert capsys.readouterr().err.endswith('pip install "keep-vfsr[sweep]"\n')


def test_a_training_reports_its_status_and_last_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fake(words: list[str]) -> tuple[int, str]:
        assert words[-1] == "--auto-resume"
        assert f"root={tmp_path / 'runs'}" in words
        assert "seed=3" in words
        return 2, "warning: a\nerror: b\n"

    monkeypatch.setattr(search, "finish", fake)
    args: Any = type("Args", (), {"opt": "tiny/stage1.yml", "set": ["train.iters=1"]})
    assert search.train(args, {"train.warmup": 1}, tmp_path, "trial000_seed3", 3) == (2, "error: b")


def test_a_stop_signal_goes_to_the_training_which_ends_by_itself() -> None:
    code = """if True:
        import os, signal, sys
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
        os.kill(os.getppid(), signal.SIGTERM)
        signal.pause()
    """
    assert search.finish([sys.executable, "-c", code]) == (75, "")
