"""Trackers: TensorBoard and MLflow themselves, Weights & Biases by a stand-in for its package."""

import io
import logging
import math
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from keep import train as keep_train
from keep.config.reading import load
from keep.config.registry import build
from keep.config.schema import TrainConfig
from keep.training.records import RunLog
from keep.training.trackers import Tracker
from keep.training.trackers.mlflow import MLflow, allowed, parameters
from keep.training.trackers.tensorboard import TensorBoard
from keep.training.trackers.wandb import WandB
from keep.utils.errors import UserError


def clip(frames: int) -> np.ndarray:
    """uint8 (T, 8, 12, 3): the left half grows brighter, the right half stays red."""
    out = np.zeros((frames, 8, 12, 3), np.uint8)
    out[:, :, :6] = np.linspace(0, 255, frames, dtype=np.uint8)[:, None, None, None]
    out[:, :, 6:, 0] = 200
    return out


# --- TensorBoard ------------------------------------------------------------------------------------------------


def board(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder / "tb"))
    events.Reload()
    return events


def test_tensorboard_shows_scalars_images_clips_and_options(tmp_path: Path) -> None:
    records = RunLog(tmp_path, trackers=[TensorBoard()], options="name: a\nseed: 0\n")
    records.scalars(3, {"loss/pixel": 0.5, "lr/net": 1e-4, "loss/gan": math.nan})
    records.clip("train", 3, clip(4), fps=10)
    records.close()
    events = board(tmp_path)
    assert set(events.Tags()["scalars"]) == {"loss/pixel", "lr/net", "loss/gan"}
    assert [(e.step, e.value) for e in events.Scalars("loss/pixel")] == [(3, 0.5)]
    assert math.isnan(events.Scalars("loss/gan")[0].value)
    still = Image.open(io.BytesIO(events.Images("train/frame")[0].encoded_image_string))
    np.testing.assert_array_equal(np.asarray(still), clip(4)[0])
    moving: Any = Image.open(io.BytesIO(events.Images("train/clip")[0].encoded_image_string))
    assert (moving.format, moving.n_frames, moving.size, moving.info["duration"]) == ("GIF", 4, (12, 8), 100)
    moving.seek(3)
    assert np.abs(np.asarray(moving.convert("RGB"), int) - clip(4)[3]).max() < 8
    assert "options/text_summary" in events.Tags()["tensors"]


def test_a_single_frame_is_no_animation(tmp_path: Path) -> None:
    records = RunLog(tmp_path, trackers=[TensorBoard()])
    records.clip("val", 1, clip(1))
    records.close()
    assert board(tmp_path).Tags()["images"] == ["val/frame"]


def test_tensorboard_hides_the_steps_that_a_resumed_run_repeats(tmp_path: Path) -> None:
    for last_step, steps, factor in ((0, (1, 2, 3, 4), 1.0), (2, (3, 4), 10.0)):
        records = RunLog(tmp_path, last_step, [TensorBoard()])
        for step in steps:
            records.scalars(step, {"loss/pixel": factor * step})
        records.close()
    assert [e.value for e in board(tmp_path).Scalars("loss/pixel")] == [1, 2, 30, 40]


# --- Weights & Biases -------------------------------------------------------------------------------------------


class FakeWandb(types.ModuleType):
    """What the tracker asks of the package."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.runs: list[dict[str, Any]] = []
        self.logged: list[dict[str, Any]] = []
        self.metrics: list[tuple[str, str]] = []
        self.finished = 0
        self.reachable = True

    def init(self, **given: Any) -> "FakeWandb":
        if given["mode"] == "online" and not self.reachable:
            raise RuntimeError("no network\nmore lines")
        self.runs.append(given)
        return self

    def define_metric(self, name: str, step_metric: str) -> None:
        self.metrics.append((name, step_metric))

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)

    def finish(self, exit_code: int) -> None:
        self.finished += 1
        self.status = exit_code

    def Image(self, frame: np.ndarray) -> tuple[str, Any]:  # noqa: N802, wandb's name
        return "image", frame.shape

    def Video(self, data: Any, format: str) -> tuple[str, Any]:  # noqa: N802, wandb's name
        return format, data.read(6)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_wandb_gets_scalars_clips_and_options(tmp_path: Path, wandb: FakeWandb) -> None:
    records = RunLog(tmp_path, trackers=[WandB(project="faces", tags=("a", "b"))], options="seed: 3\n")
    records.scalars(5, {"loss/pixel": 0.5})
    records.clip("val", 5, clip(3))
    records.clip("val", 6, clip(1))
    records.close()
    (run,) = wandb.runs
    assert (run["project"], run["tags"], run["config"], run["mode"]) == ("faces", ["a", "b"], {"seed": 3}, "online")
    assert (run["name"], run["dir"]) == (tmp_path.name, str(tmp_path))
    assert wandb.metrics == [("*", "step")]
    assert wandb.logged == [
        {"step": 5, "loss/pixel": 0.5},
        {"step": 5, "val/frame": ("image", (8, 12, 3)), "val/clip": ("gif", b"GIF89a")},
        {"step": 6, "val/frame": ("image", (8, 12, 3))},
    ]
    assert wandb.finished == 1


def test_a_resumed_run_keeps_its_wandb_id(tmp_path: Path, wandb: FakeWandb) -> None:
    for step in (0, 10):
        RunLog(tmp_path, step, [WandB()]).close()
    first, second = wandb.runs
    assert first["id"] == second["id"] == (tmp_path / "wandb_id.txt").read_text()
    assert second["resume"] == "allow"


def test_an_unreachable_wandb_stops_a_new_run_but_not_a_resumed_one(
    tmp_path: Path, wandb: FakeWandb, caplog: pytest.LogCaptureFixture
) -> None:
    wandb.reachable = False
    with pytest.raises(UserError, match=r"WandB: cannot open the run: no network; or set its option mode to offline$"):
        RunLog(tmp_path, 0, [WandB()])
    RunLog(tmp_path, 10, [WandB()]).close()
    assert wandb.runs[-1]["mode"] == "offline"
    assert "kept for `wandb sync`" in caplog.text


def test_a_run_that_fails_is_closed_as_failed(tmp_path: Path, wandb: FakeWandb) -> None:
    with pytest.raises(KeyError), RunLog(tmp_path, 0, [WandB()]):
        raise KeyError
    assert wandb.status == 1
    RunLog(tmp_path, 0, [WandB()]).close()
    assert wandb.status == 0


# --- MLflow -----------------------------------------------------------------------------------------------------


def test_mlflow_keeps_scalars_clips_and_options_over_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="needs the extra mlflow")
    monkeypatch.chdir(tmp_path)  # MLflow puts artifacts below the present folder
    folder, store = tmp_path / "run", f"sqlite:///{tmp_path / 'mlflow.db'}"
    folder.mkdir()
    for last_step, step in ((0, 1), (1, 2)):
        tracker = MLflow(uri=store, experiment="faces", tags={"who": "me"})
        records = RunLog(folder, last_step, [tracker], "name: run\ntrain: {iters: 5}\n")
        records.scalars(step, {"val/PSNR (ema)": 20.0 + step, "loss/pixel": math.nan})
        records.clip("val", step, clip(3))
        records.close()
    client: Any = tracker._client
    experiment = client.get_experiment_by_name("faces")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status, run.data.tags["who"]) == ("run", "FINISHED", "me")
    assert run.data.params == {"name": "run", "train.iters": "5"}
    history = client.get_metric_history(run.info.run_id, "val/PSNR ema")
    assert [(m.step, m.value) for m in history] == [(1, 21.0), (2, 22.0)]
    assert [f.path for f in client.list_artifacts(run.info.run_id, "val")] == ["val/00000001.gif", "val/00000002.gif"]


def test_names_and_options_as_mlflow_takes_them() -> None:
    assert allowed("val/σ_IDS (×10) (ema)") == "val/σ_IDS 10 ema"
    given = {"a": {"b": [1, 2], "c (x)": {}}, "d": None, "e": [{"type": "Blur", "on": True}]}
    assert parameters(given) == {"a.b": "[1, 2]", "a.c x": "{}", "d": "null", "e.0.type": "Blur", "e.0.on": "true"}
    assert [len(text) for text in parameters({"a": "x" * 9999}).values()] == [500]


# --- all of them ------------------------------------------------------------------------------------------------


class Broken(Tracker):
    """Fails at what it is told to fail at."""

    def __init__(self, fails_at: str) -> None:
        self.fails_at, self.calls = fails_at, []

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name == self.fails_at:
            raise UserError("no server") if name == "open" else ConnectionError("lost\nlong story")

    def open(self, folder: Path, last_step: int, options: str) -> None:
        self._call("open")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._call("scalars")

    def clip(self, name: str, step: int, frames: np.ndarray, fps: float) -> None:
        self._call("clip")

    def close(self, failed: bool) -> None:
        self._call("close")


def test_a_tracker_that_fails_gets_no_more_records_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken, sound = Broken("scalars"), Broken("")
    records = RunLog(tmp_path, trackers=[broken, sound])
    logging.getLogger("keep").propagate = True
    for step in (1, 2):
        records.scalars(step, {"loss": 1.0})
        records.clip("val", step, clip(1))
    records.close()
    assert broken.calls == ["open", "scalars", "close"]
    assert sound.calls == ["open", "scalars", "clip", "scalars", "clip", "close"]
    assert "Broken: lost; it gets no more records of this run" in caplog.text
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2


def test_a_tracker_that_cannot_open_stops_a_new_run_alone(tmp_path: Path) -> None:
    before, broken, after = Broken(""), Broken("open"), Broken("")
    with pytest.raises(UserError, match="no server"):
        RunLog(tmp_path, 0, [before, broken])
    assert before.calls == ["open", "close"]
    RunLog(tmp_path, 5, [broken, after]).close()
    assert after.calls == ["open", "close"]


def test_a_resumed_run_goes_on_without_a_tracker_that_fails_in_any_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, after = Broken(""), Broken("")
    monkeypatch.setattr(broken, "open", lambda *_: (tmp_path / "none").read_text())
    RunLog(tmp_path, 5, [broken, after]).close()
    assert (broken.calls, after.calls) == ([], ["open", "close"])


@pytest.mark.parametrize(
    ("name", "package"), [("WandB", "wandb"), ("MLflow", "mlflow"), ("TensorBoard", "tensorboard")]
)
def test_a_missing_package_is_one_line_before_anything_is_written(
    name: str, package: str, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for module in [package, *(m for m in sys.modules if m.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, module, None)
    path, overrides = tiny(1, f"log.trackers=[{name}]")
    words = ["-opt", str(path), *(word for o in overrides for word in ("--set", o))]
    for more in ([], ["--dry-run"]):
        assert keep_train.main([*words, *more]) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith(f"error: the tracker {name} needs")
        assert f"pip install {package}" in line.replace("keep-vfsr[", "").replace("]", "")
    assert not (tmp_path / "experiments").exists()


def test_several_trackers_in_one_file(tmp_path: Path, wandb: FakeWandb) -> None:
    text = "log: {trackers: [TensorBoard, {type: WandB, project: faces}]}\n_base_: tiny/stage1.yml\n"
    (tmp_path / "own.yml").write_text(text)
    config = load(tmp_path / "own.yml", [], TrainConfig)
    assert [type(tracker) for tracker in build(config.log.trackers)] == [TensorBoard, WandB]
    assert [spec.type for spec in load("tiny/stage1.yml", [], TrainConfig).log.trackers] == ["TensorBoard"]
    with pytest.raises(UserError, match=r"log\.trackers\.0: no tracker is named 'Wandb'; did you mean 'WandB'\?"):
        load("tiny/stage1.yml", ["log.trackers=[Wandb]"], TrainConfig)
