"""Progress in a log file: a line every thirty seconds, on a clock of the test's own."""

import io
import re
import sys

import pytest
import tqdm.std

from keep.utils import progress
from keep.utils.progress import LogLines, progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(tqdm.std, "time", lambda: now[0])
    monkeypatch.setattr(progress, "LogLines", lambda stream: LogLines(stream, lambda: now[0]))
    return now


def run(clock: list[float], stream: io.StringIO, monkeypatch, steps: int, seconds: float, items=None, **options) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    for _ in progress_bar(
        range(steps) if items is None else items, desc="aligning", unit=" videos", delay=2, **options
    ):
        clock[0] += seconds
    return stream.getvalue()


def test_a_log_file_gets_a_line_every_thirty_seconds(clock, monkeypatch):
    lines = run(clock, io.StringIO(), monkeypatch, 100, 1).splitlines()
    assert lines == [
        "aligning: 30 of 100 videos (30 %), 00:30 passed, 01:10 left",
        "aligning: 60 of 100 videos (60 %), 01:00 passed, 00:40 left",
        "aligning: 90 of 100 videos (90 %), 01:30 passed, 00:10 left",
        "aligning: 100 of 100 videos (100 %), 01:40 passed, 00:00 left",
    ]


def test_one_without_a_total(clock, monkeypatch):
    lines = run(clock, io.StringIO(), monkeypatch, 0, 10, iter(range(6))).splitlines()
    assert lines == ["aligning: 3 videos, 00:30 passed", "aligning: 6 videos, 01:00 passed"]


def test_a_short_one_is_quiet(clock, monkeypatch):
    assert run(clock, io.StringIO(), monkeypatch, 5, 0.1) == ""
    assert run(clock, io.StringIO(), monkeypatch, 5, 1, leave=False) == ""
    assert run(clock, io.StringIO(), monkeypatch, 5, 1) == "aligning: 5 of 5 videos (100 %), 00:05 passed, 00:00 left\n"


def test_messages_between_make_no_lines(clock, monkeypatch, capsys):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    for _ in progress_bar(range(20), desc="restoring", delay=2, leave=False):
        clock[0] += 1
        tqdm.std.tqdm.write("a message", file=sys.stdout)
    assert stream.getvalue() == ""
    assert capsys.readouterr().out == "a message\n" * 20


def test_a_terminal_gets_a_bar(clock, monkeypatch):
    text = run(clock, Terminal(), monkeypatch, 10, 1)
    assert text.count("\r") >= 8
    assert re.search(r"aligning: 100%\|.+\| 10/10 ", text)
