"""The profiler: which steps it measures, what it writes, and that it does nothing when off."""

import gzip
import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from keep.config.schema import ProfileOptions
from keep.training import profile
from keep.training.profile import OFF, Profiler, table

CPU = torch.device("cpu")


class FakeTime:
    """Time that passes only when a test adds to ``now``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(profile.time, "perf_counter", lambda: self.now)


def step(profiler: Profiler, clock: FakeTime, scale: float = 1.0) -> None:
    for name, seconds in (("data", 1), ("forward", 2), ("backward", 4), ("forward", 1), ("step", 1)):
        with profiler.part(name):
            clock.now += seconds * scale
    clock.now += 1 * scale
    profiler.step_done()


def test_parts_of_the_chosen_steps_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeTime(monkeypatch)
    profiler = Profiler(ProfileOptions(start=2, steps=2, trace_steps=0), tmp_path, CPU)
    for scale in (50, 50, 1, 3, 50):  # the first two and the last are not measured
        step(profiler, clock, scale)
    profiler.close()
    assert profiler.rows == [
        {"data": s, "forward": 3 * s, "backward": 4 * s, "step": s, "whole": 10 * s} for s in (1.0, 3.0)
    ]
    rows = (tmp_path / "profile/steps.md").read_text().splitlines()
    assert rows[2:] == [
        "| data | 2.0000 | 2.0000 | 10.0% |",
        "| forward | 6.0000 | 6.0000 | 30.0% |",
        "| backward | 8.0000 | 8.0000 | 40.0% |",
        "| step | 2.0000 | 2.0000 | 10.0% |",
        "| other | 2.0000 | 2.0000 | 10.0% |",
        "| whole step | 20.0000 | 20.0000 | 100.0% |",
    ]


def test_the_trace_holds_the_parts_and_the_operators(tmp_path: Path) -> None:
    profiler = Profiler(ProfileOptions(start=0, steps=1, trace_steps=2), tmp_path, CPU)
    a = torch.randn(32, 32)
    for _ in range(6):
        with profiler.part("forward"):
            torch.mm(a, a)
        profiler.step_done()
    profiler.close()
    with gzip.open(tmp_path / "profile/trace.json.gz", "rt") as file:
        names = [e.get("name") for e in json.load(file)["traceEvents"] if e.get("cat") in ("user_annotation", "cpu_op")]
    assert names.count("aten::mm") == 2  # not the timed step, nor the one that warms the tracer up
    assert names.count("forward") == 2
    assert "aten::mm" in (tmp_path / "profile/operators.txt").read_text()
    assert {p.name for p in (tmp_path / "profile").iterdir()} == {"steps.md", "operators.txt", "trace.json.gz"}


def test_a_run_that_ends_during_the_trace_closes_it(tmp_path: Path) -> None:
    profiler = Profiler(ProfileOptions(start=0, steps=1, trace_steps=50), tmp_path, CPU)
    for _ in range(4):
        with profiler.part("forward"):
            torch.ones(2).sum()
        profiler.step_done()
    profiler.close()
    profiler.close()
    with gzip.open(tmp_path / "profile/trace.json.gz", "rt") as file:
        assert any(e.get("name") == "forward" for e in json.load(file)["traceEvents"])


@pytest.mark.parametrize("enabled", [True, False])
def test_when_off_it_writes_nothing(tmp_path: Path, enabled: bool) -> None:
    profiler = Profiler(None if enabled else ProfileOptions(start=0, steps=1), tmp_path, CPU, enabled)
    for _ in range(3):
        assert isinstance(profiler.part("data"), nullcontext)
        profiler.step_done()
    profiler.close()
    assert list(tmp_path.iterdir()) == []
    assert isinstance(OFF.part("data"), nullcontext)


def test_an_error_inside_a_part_is_raised(tmp_path: Path) -> None:
    profiler = Profiler(ProfileOptions(start=0), tmp_path, CPU)
    with pytest.raises(ValueError, match="planted"), profiler.part("forward"):
        raise ValueError("planted")


def test_a_part_that_some_steps_lack_counts_as_zero() -> None:
    text = table([{"forward": 1.0, "whole": 1.0}, {"forward": 1.0, "save": 2.0, "whole": 3.0}])
    assert "| save | 1.0000 | 1.0000 | 50.0% |" in text
