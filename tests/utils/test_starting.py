"""A program that is stopped while it starts ends with one line, whatever it imports at that moment."""

import signal
import subprocess
import sys

import pytest

DOORS = {
    "restore": ["-m", "keep.restore", "in.mp4", "-o", "out.mp4"],
    "test": ["-m", "keep.test", "-opt", "options/test/vfhq_heavy.yml"],
    "train": ["-m", "keep.train", "-opt", "options/tiny/stage1.yml", "--dry-run"],
    "app": ["-m", "keep.app"],
    "data": ["-m", "keep.data.tools", "align", "in", "out"],
}
STATUS = {"train": 75}
"""Door → exit status after a signal; 130 for the others."""


@pytest.mark.parametrize("imports", [1, 150])
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_while_starting_ends_in_one_line(door, number, imports):
    """The signal is sent after so many imports: Python reports each of them."""
    if imports > 1 and number != signal.SIGINT:
        pytest.skip("one moment is enough for the other signals")
    if number == signal.SIGUSR1 and door != "train":
        pytest.skip("a signal for training alone")
    command = [sys.executable, "-X", "importtime", *DOORS[door]]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.endswith("keep.utils.starting\n"):
            break
    for _ in range(imports):
        process.stderr.readline()
    process.send_signal(number)
    out, error = process.communicate()
    lines = [line for line in error.splitlines() if not line.startswith("import time:")]
    assert lines == ["stopped"]
    assert process.returncode == STATUS.get(door, 130)
    assert out == ""
