"""scripts/slurm/train.sbatch with replacements of SLURM's commands: the ranks it starts, and when it requeues."""

import signal
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/slurm/train.sbatch"

SRUN = """#!/usr/bin/env bash
while [ "${1#--}" != "$1" ]; do shift; done
status=0
for task in 0 1; do
  SLURM_PROCID=$task SLURM_LOCALID=$task SLURM_NTASKS=2 "$@" || status=$?
done
exit $status
"""
SCONTROL = """#!/usr/bin/env bash
case "$1 $2" in
  "show hostnames") printf 'node7\\nnode8\\n' ;;
  "requeue 4242") echo requeued >> calls ;;
esac
"""
PYTHON = """#!/usr/bin/env bash
echo "$RANK $LOCAL_RANK $WORLD_SIZE $MASTER_ADDR $MASTER_PORT $*" >> calls
exit ${STATUS:-0}
"""


@pytest.fixture
def job(tmp_path: Path):
    """(status of training, *arguments) → (status of the job, the calls it made)."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("python", PYTHON)):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)

    def start(status: int, *arguments: str) -> tuple[int, list[str]]:
        environment = {
            "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "STATUS": str(status), "SLURM_JOB_ID": "4242",
            "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_SUBMIT_DIR": str(tmp_path),
        }  # fmt: skip
        done = subprocess.run(["bash", str(SCRIPT), *arguments], env=environment, capture_output=True, timeout=60)
        calls = tmp_path / "calls"
        return done.returncode, calls.read_text().splitlines() if calls.exists() else []

    return start


def test_every_task_is_a_rank_that_resumes_the_run(job) -> None:
    status, calls = job(0, "my options.yml", "--set", "name=a b")
    assert status == 0
    command = "-m keep.train -opt my options.yml --set name=a b --auto-resume"
    assert calls == [f"{rank} {rank} 2 node7 24242 {command}" for rank in (0, 1)]


def test_a_saved_run_is_requeued_and_a_failed_one_is_not(job) -> None:
    stopped = (75, 128 + signal.SIGUSR1, 128 + signal.SIGTERM)
    for status in stopped:
        status, calls = job(status, "options.yml")
        assert (status, calls[-1]) == (0, "requeued")
    for failed in (1, 2, 128 + signal.SIGKILL):
        status, calls = job(failed, "options.yml")
        assert status == failed
        assert calls.count("requeued") == len(stopped)


def test_a_missing_options_file_is_an_error(job) -> None:
    assert job(0) == (2, [])
