"""keep/training/records.py and progress.py: files, TensorBoard, W&B (a stand-in for the package), the progress line."""

import io
import json
import logging
import math
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from keep.config.schema import WandbOptions
from keep.training.progress import Progress, format_duration, learning_rates
from keep.training.records import RunLog, cut_records
from keep.utils.errors import UserError


@pytest.fixture(autouse=True)
def _logger_as_it_was():
    """The tests write through the one ``keep`` logger."""
    log = logging.getLogger("keep")
    before = log.level, log.propagate, list(log.handlers)
    log.setLevel(logging.INFO)
    log.propagate = True
    yield
    log.setLevel(before[0])
    log.propagate, log.handlers = before[1], before[2]


def clip(frames: int) -> np.ndarray:
    """uint8 (T, 8, 12, 3): the left half grows brighter, the right half stays red."""
    out = np.zeros((frames, 8, 12, 3), np.uint8)
    out[:, :, :6] = np.linspace(0, 255, frames, dtype=np.uint8)[:, None, None, None]
    out[:, :, 6:, 0] = 200
    return out


def board(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder / "tb"))
    events.Reload()
    return events


def test_scalars_images_and_clips_can_be_read_back(tmp_path: Path) -> None:
    records = RunLog(tmp_path, options="name: a\nseed: 0\n")
    records.scalars(3, {"loss/pixel": 0.5, "lr/net": 1e-4})
    records.clip("train", 3, clip(4), fps=10)
    records.close()
    assert json.loads((tmp_path / "log.jsonl").read_text()) == {"step": 3, "loss/pixel": 0.5, "lr/net": 1e-4}
    events = board(tmp_path)
    assert set(events.Tags()["scalars"]) == {"loss/pixel", "lr/net"}
    assert [(e.step, e.value) for e in events.Scalars("loss/pixel")] == [(3, 0.5)]
    still = Image.open(io.BytesIO(events.Images("train/frame")[0].encoded_image_string))
    np.testing.assert_array_equal(np.asarray(still), clip(4)[0])
    moving: Any = Image.open(io.BytesIO(events.Images("train/clip")[0].encoded_image_string))
    assert (moving.format, moving.n_frames, moving.size, moving.info["duration"]) == ("GIF", 4, (12, 8), 100)
    moving.seek(3)
    assert np.abs(np.asarray(moving.convert("RGB"), int) - clip(4)[3]).max() < 8
    assert "options/text_summary" in events.Tags()["tensors"]


def test_add_video_puts_clips_side_by_side(tmp_path: Path) -> None:
    records = RunLog(tmp_path)
    records._board.add_video("pair", np.stack([clip(2), 255 - clip(2)]).transpose(0, 1, 4, 2, 3), 1)
    records.close()
    picture = Image.open(io.BytesIO(board(tmp_path).Images("pair")[0].encoded_image_string)).convert("RGB")
    both = np.concatenate([clip(2)[0], 255 - clip(2)[0]], axis=1)
    assert np.abs(np.asarray(picture, int) - both).max() < 8


def test_a_single_frame_is_no_animation(tmp_path: Path) -> None:
    records = RunLog(tmp_path)
    records.clip("val", 1, clip(1))
    records.close()
    assert board(tmp_path).Tags()["images"] == ["val/frame"]


def test_a_number_that_is_not_finite_is_null_in_the_file(tmp_path: Path) -> None:
    records = RunLog(tmp_path)
    records.scalars(1, {"loss/pixel": math.nan, "loss/gan": math.inf, "loss/d": 1.0})
    records.close()
    text = (tmp_path / "log.jsonl").read_text()
    assert "NaN" not in text
    assert json.loads(text) == {"step": 1, "loss/pixel": None, "loss/gan": None, "loss/d": 1.0}
    assert math.isnan(board(tmp_path).Scalars("loss/pixel")[0].value)


def test_a_resumed_run_deletes_the_records_it_repeats(tmp_path: Path) -> None:
    records = RunLog(tmp_path)
    for step in (1, 2, 3, 4):
        records.scalars(step, {"loss/pixel": float(step)})
    records.close()
    records = RunLog(tmp_path, 2)
    for step in (3, 4):
        records.scalars(step, {"loss/pixel": 10.0 * step})
    records.close()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [r["loss/pixel"] for r in lines] == [1, 2, 30, 40]
    assert [e.value for e in board(tmp_path).Scalars("loss/pixel")] == [1, 2, 30, 40]


def test_an_unfinished_line_is_deleted(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "a": 2}\n{"step": 2, "a": 3}\n{"step": 3, "a"', encoding="utf-8")
    cut_records(path, 9)
    assert path.read_text() == '{"step": 1, "a": 2}\n{"step": 2, "a": 3}\n'
    cut_records(path, 1)
    assert path.read_text() == '{"step": 1, "a": 2}\n'
    cut_records(tmp_path / "none.jsonl", 1)
    assert [p.name for p in tmp_path.iterdir()] == ["log.jsonl"]


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    records = RunLog(tmp_path, enabled=False, wandb=WandbOptions())
    records.scalars(1, {"loss/pixel": 1.0})
    records.clip("train", 1, clip(2))
    records.close()
    assert list(tmp_path.iterdir()) == []


def test_messages_of_the_run_are_in_its_log_file(tmp_path: Path) -> None:
    records = RunLog(tmp_path)
    logging.getLogger("keep").info("saved step %d", 7)
    records.close()
    logging.getLogger("keep").info("after the end")
    text = (tmp_path / "train.log").read_text()
    assert text.endswith("saved step 7\n")


# --- learning rates ---------------------------------------------------------------------------------------------


def test_every_group_has_its_learning_rate() -> None:
    def group(lr: float, **more: Any) -> dict[str, Any]:
        return {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr, **more}

    net = torch.optim.SGD([group(0.1, name=""), group(0.01, name="kalman_filter")])
    critic = torch.optim.SGD([group(0.2)])
    rates = learning_rates({"net": net, "discriminator": critic})
    assert rates == {"lr/net": 0.1, "lr/net.kalman_filter": 0.01, "lr/discriminator": 0.2}


# --- Weights & Biases -------------------------------------------------------------------------------------------


class FakeWandb(types.ModuleType):
    """What keep.training.records asks of the package."""

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

    def finish(self) -> None:
        self.finished += 1

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
    records = RunLog(tmp_path, wandb=WandbOptions(project="faces", tags=("a", "b")), options="seed: 3\n")
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
        RunLog(tmp_path, step, wandb=WandbOptions()).close()
    first, second = wandb.runs
    assert first["id"] == second["id"] == (tmp_path / "wandb_id.txt").read_text()
    assert second["resume"] == "allow"


def test_an_unreachable_wandb_stops_a_new_run_but_not_a_resumed_one(
    tmp_path: Path, wandb: FakeWandb, caplog: pytest.LogCaptureFixture
) -> None:
    wandb.reachable = False
    with pytest.raises(UserError, match=r"cannot open the run: no network; or set log\.wandb\.mode to offline$"):
        RunLog(tmp_path, wandb=WandbOptions())
    RunLog(tmp_path, 10, wandb=WandbOptions()).close()
    assert wandb.runs[-1]["mode"] == "offline"
    assert "kept for `wandb sync`" in caplog.text


def test_a_missing_wandb_is_reported_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install keep-vfsr\[wandb\]"):
        RunLog(tmp_path, wandb=WandbOptions())


# --- progress ---------------------------------------------------------------------------------------------------


def test_a_line_shows_terms_rate_data_share_and_time_left(caplog: pytest.LogCaptureFixture) -> None:
    progress = Progress("run", 100, 8)
    with caplog.at_level("INFO", "keep"):
        assert progress.step(9, 0.5, 0.5, None, 1e-4) == {}
        timing = progress.step(10, 0.5, 2.5, {"pixel": 0.25}, 1e-4)
    progress.close()
    assert timing == {"time/step": 2.0, "time/data_share": 0.25}
    assert caplog.messages == ["run  10/100  pixel 0.25  lr 1.00e-04  data 25%  2.00 s/step  left 00:03:00"]


def test_no_terminal_means_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("run", 2, 0)
    progress.step(1, 0.1, 0.1, {"pixel": 1.0}, 1e-4)
    progress.close()
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_the_bar_on_the_first_rank_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for enabled in (True, False):
        progress = Progress("faces", 2, 0, enabled=enabled)
        progress.step(1, 0.1, 0.1, {"pixel": 1.0}, 1e-4)
        progress.close()
        shown = capsys.readouterr().err
        assert ("faces" in shown) == enabled
        assert ("pixel 1" in shown) == enabled


def test_other_ranks_measure_times_and_log_nothing(caplog: pytest.LogCaptureFixture) -> None:
    progress = Progress("run", 2, 0, enabled=False)
    with caplog.at_level("INFO", "keep"):
        assert progress.step(1, 1.0, 1.0, {"pixel": 1.0}, 1e-4)["time/data_share"] == 0.5
    assert caplog.text == ""


def test_durations_longer_than_a_day() -> None:
    assert [format_duration(s) for s in (0, 3661, 86400 * 3 + 59.6)] == ["00:00:00", "01:01:01", "3 d 00:01:00"]
