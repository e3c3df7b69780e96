"""keep-submit through submitit's executor on this machine: the ranks it starts, and when it requeues."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from keep import submit as door
from keep.utils.errors import UserError
from keep.utils.slurm import Task, submit, wait

needs_submitit = pytest.mark.skipif(find_spec("submitit") is None, reason="submitit is not installed")

PROGRAM = """
import os, signal, sys
from pathlib import Path
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
mark = Path("rank" + os.environ["RANK"])
first = not mark.exists()
with mark.open("a") as file:
    print(*(os.environ[name] for name in names), 20000 <= int(os.environ["MASTER_PORT"]) < 40000, file=file)
if first:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    os.kill(os.getppid(), signal.SIGUSR2)  # as SLURM does before the time limit
    sys.exit(75 if signal.sigwait({signal.SIGTERM}) == signal.SIGTERM else 1)
sys.exit(int(sys.argv[1]))
"""


@needs_submitit
def test_stopped_tasks_are_requeued_and_failed_ones_are_not(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    task = Task([sys.executable, "-c", PROGRAM, "0"])
    job = submit(task, tmp_path / "logs", local=True, tasks_per_node=2, timeout_min=5)
    assert job.results() == [None, None]
    for rank in "01":
        assert (tmp_path / f"rank{rank}").read_text() == f"{rank} {rank} 2 True\n" * 2
    failing = Task([sys.executable, "-c", PROGRAM, "2"])
    job = submit(failing, tmp_path / "logs", local=True, timeout_min=5)
    with pytest.raises(UserError, match="failed: exit status 2: "):
        wait(job)
    assert len((tmp_path / "rank0").read_text().splitlines()) == 3


@needs_submitit
def test_what_sbatch_is_asked_for(tmp_path, monkeypatch, capsys) -> None:
    """The script that submitit writes, with a replacement of sbatch."""
    for name, text in (("srun", ""), ("sbatch", f'cp "$1" {tmp_path}/script; echo Submitted batch job 4242')):
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    words = ["--nodes", "2", "--gpus", "4", "--hours", "3", "--slurm", "partition=a100", "train", "-opt", "a b.yml"]
    assert door.main([*words, "--set", "name=x"]) == 0
    assert "job 4242" in capsys.readouterr().out
    script = (tmp_path / "script").read_text()
    lines = ("nodes=2", "ntasks-per-node=4", "gpus-per-node=4", "cpus-per-task=6", "time=180", "signal=USR2@300",
             "requeue", "open-mode=append", "partition=a100")  # fmt: skip
    for line in lines:
        assert f"#SBATCH --{line}\n" in script
    assert "--kill-on-bad-exit=0 --wait=120" in script


@needs_submitit
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert door.main(["train", "-opt", "x.yml"]) == 2
    assert (
        capsys.readouterr().err == 'error: cannot submit: Could not detect "srun", are you indeed on a slurm cluster?\n'
    )
    assert door.main(["--slurm", "partition", "train"]) == 2
    assert "--slurm: must be KEY=VALUE, not 'partition'" in capsys.readouterr().err


def test_without_submitit_one_line_names_the_extra(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert door.main(["train", "-opt", "x.yml"]) == 2
    message = 'error: keep-submit needs the package submitit: pip install "keep-vfsr[submitit]"\n'
    assert capsys.readouterr().err == message
