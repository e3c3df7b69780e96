"""keep/training/records.py and progress.py: files, and the progress line."""

import json
import logging
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from keep.training.progress import Progress, format_duration, learning_rates
from keep.training.records import RunLog, cut_records


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


def test_scalars_can_be_read_back(tmp_path: Path) -> None:
    records = RunLog(tmp_path)
    records.scalars(3, {"loss/pixel": 0.5, "lr/net": 1e-4})
    records.close()
    assert json.loads((tmp_path / "log.jsonl").read_text()) == {"step": 3, "loss/pixel": 0.5, "lr/net": 1e-4}


def test_a_number_that_is_not_finite_is_null_in_the_file(tmp_path: Path) -> None:
    records = RunLog(tmp_path)
    records.scalars(1, {"loss/pixel": math.nan, "loss/gan": math.inf, "loss/d": 1.0})
    records.close()
    text = (tmp_path / "log.jsonl").read_text()
    assert "NaN" not in text
    assert json.loads(text) == {"step": 1, "loss/pixel": None, "loss/gan": None, "loss/d": 1.0}


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
    records = RunLog(tmp_path, trackers=None)
    records.scalars(1, {"loss/pixel": 1.0})
    records.clip("train", 1, np.zeros((2, 8, 8, 3), np.uint8))
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


def test_a_line_that_is_no_record_is_deleted(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"loss": 2}\n[3]\n4\n')
    RunLog(tmp_path, 2).close()
    assert path.read_text() == '{"step": 1}\n'
