"""A disk that is full while a file is written: one line with the path, the old file complete, nothing left behind.

The limit on the size of files stands in for the full disk: the write fails in the same way.
"""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tiny_runs import options_and_start

from keep import train
from keep.config import cli
from keep.utils import weight_files
from keep.utils.io import write_file


@contextmanager
def full_at(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


WRITERS = {
    "text": lambda path: write_file(path, "x" * 100_000),
    "checkpoint": lambda path: weight_files.save(path, {"params": {"a": torch.ones(100_000)}}),
    "many tensors": lambda path: weight_files.save(path, {str(i): torch.ones(1000) for i in range(100)}),
    "safetensors": lambda path: weight_files.save_safetensors(path, {"a": torch.ones(100_000)}, {}),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("size", [0, 20_000])
def test_a_full_disk_is_one_line_with_the_path(kind: str, size: int, tmp_path: Path, capsys) -> None:
    path = tmp_path / "file.pth"
    path.write_text("old")
    with full_at(size):
        assert cli.run(lambda _: WRITERS[kind](path)) == 2
    assert capsys.readouterr().err == f"error: {path}: File too large\n"
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_says_which_checkpoints_are_complete(clips: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    path, settings = options_and_start(1, clips, tmp_path)
    arguments = ["-opt", str(path), *(x for s in settings for x in ("--set", s))]
    save, saves = weight_files.save, []

    def save_until_full(target: Path, content) -> None:
        saves.append(target)
        if len(saves) < 4:  # weights, discriminator and state of step 2; weights of step 4
            return save(target, content)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(weight_files, "save", save_until_full)
    assert train.main(arguments) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == (
        f"error: {saves[-1]}: cannot write: No space left on device; the checkpoints before step 4 are complete: "
        "make room, then resume with --auto-resume"
    )
    monkeypatch.undo()
    assert train.main([*arguments, "--auto-resume"]) == 0
    assert "at step 2" in capsys.readouterr().out
