"""scripts/gpu_kit: jobs that fail, hang or are killed, and what is then in the results folder."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from gpu_kit_jobs import FAILS, HANGS, ROWS, STUBBORN, TRAINS, job

from scripts.gpu_kit.jobs import Job, run_job
from scripts.gpu_kit.join import join
from scripts.gpu_kit.kit import ROOT, Kit
from scripts.gpu_kit.weights import LIST


def run(tmp_path: Path, jobs: list[Job], budget: float = 60.0, **more: Any) -> tuple[bool, dict[str, Any]]:
    options = {"margin": 0.0, "grace": 2.0, **more}
    passed = Kit(jobs, tmp_path / "out", tmp_path / "work", budget, **options).run()
    content = json.loads((tmp_path / "out/summary.json").read_text(encoding="utf-8"))
    return passed, {j["name"]: j for j in content["jobs"]} | {"weights": content["weights"]}


def test_a_job_that_fails_or_hangs_does_not_stop_the_others(tmp_path) -> None:
    missing = Job("missing", "", [str(tmp_path / "no_such_program")], 5.0)
    jobs = [job("fails", FAILS), missing, job("hangs", HANGS, 1.0), job("rows", ROWS, 30.0, "@FOLDER/other.json")]
    passed, found = run(tmp_path, jobs)
    assert not passed
    assert {name: found[name]["status"] for name in ("fails", "missing", "hangs", "rows")} == {
        "fails": "failed", "missing": "failed", "hangs": "out of time", "rows": "done",
    }  # fmt: skip
    assert found["fails"]["log"][-1] == "ValueError: no such card"
    assert "No such file" in found["missing"]["log"][-1]
    rows = [{"path": "plain", "frames/s": 2.5}]
    assert found["rows"]["tables"] == {"speed": rows, "other: more": rows}
    page = (tmp_path / "out/summary.md").read_text(encoding="utf-8")
    assert "| plain | 2.5000 |" in page
    assert "ValueError: no such card" in page
    with zipfile.ZipFile(tmp_path / "out/results.zip") as archive:
        assert {"fails/log.txt", "rows/log.txt", "rows/speed.json", "rows/other.json"} <= set(archive.namelist())


def test_a_job_that_ignores_sigterm_is_killed_with_its_children(tmp_path) -> None:
    child = tmp_path / "child"
    status, seconds = run_job(job("stubborn", STUBBORN), tmp_path, 60.0, os.environ, child.exists, grace=0.3)
    assert status == "out of time"
    assert seconds < 60
    assert ends(child)


def ends(note: Path) -> bool:
    """Whether the process whose number is in a file ends; a killed one may stay a zombie where nothing reaps it."""
    path, end = Path(f"/proc/{note.read_text(encoding='utf-8')}/stat"), time.monotonic() + 20
    while time.monotonic() < end:
        try:
            if path.read_text(encoding="utf-8").rpartition(")")[2].split()[0] in "ZX":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_training_gets_the_time_that_is_left_by_shares_and_its_weights_are_published(tmp_path) -> None:
    runs = [tmp_path / f"experiments/{name}" for name in ("one", "two")]
    first = job("first", TRAINS, None, str(runs[0]), "20", share=1, run=runs[0])
    second = job("second", TRAINS, None, str(runs[1]), "20", share=3, run=runs[1])
    jobs = [job("rows", ROWS), first, second]
    kit = Kit(jobs, tmp_path / "out", tmp_path / "work", 100.0, margin=0.0, grace=2.0, every=0.1)
    assert kit.run()
    content = json.loads((tmp_path / "out/summary.json").read_text(encoding="utf-8"))
    limits = {j["name"]: j["limit"] for j in content["jobs"]}
    assert limits["first"] < 98 / 4 < 2 * limits["first"]
    assert limits["second"] > 2 * limits["first"]  # all that is left
    assert list(join(tmp_path / "out")) == ["one.safetensors", "two.safetensors"]
    assert [row["run"] for row in content["weights"]] == ["one", "two"]
    with zipfile.ZipFile(tmp_path / "out/results.zip") as archive:
        assert "one/train.log" in archive.namelist()


def test_no_job_starts_after_the_end_of_the_budget(tmp_path) -> None:
    passed, found = run(tmp_path, [job("hangs", HANGS, 90.0), job("rows", ROWS)], budget=3.0, grace=1.0)
    assert not passed
    assert found["hangs"]["limit"] < 2.01
    assert found["rows"]["status"] == "skipped"


def start(folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "tests/gpu_kit_jobs.py"), str(folder)]
    return subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)


def wait_until(process: subprocess.Popen[bytes], path: Path) -> None:
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.01)


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment_it_leaves_complete_files(seed, tmp_path) -> None:
    rng = random.Random(seed)
    process = start(tmp_path)
    try:
        wait_until(process, tmp_path / "out" / ("results.zip" if seed == 0 else LIST))
        time.sleep(rng.uniform(0, 0.6))  # weights are published twenty times a second
    finally:
        process.kill()
        process.wait()
    out = tmp_path / "out"
    assert {j["name"] for j in json.loads((out / "summary.json").read_text(encoding="utf-8"))["jobs"]} == {
        "rows",
        "train",
    }
    with zipfile.ZipFile(out / "results.zip") as archive:
        assert archive.testzip() is None
    if seed:
        assert len(join(out)["one.safetensors"]) > 1000
    trainer = tmp_path / "experiments/one/pid"
    if trainer.exists():  # a job ends with its kit
        assert ends(trainer)


def test_on_sigterm_it_stops_the_job_and_publishes_its_last_weights(tmp_path) -> None:
    process = start(tmp_path)
    wait_until(process, tmp_path / "out" / LIST)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    content = json.loads((tmp_path / "out/summary.json").read_text(encoding="utf-8"))
    assert [j["status"] for j in content["jobs"]] == ["done", "done"]
    assert b'"step":"last"' in join(tmp_path / "out")["one.safetensors"]
