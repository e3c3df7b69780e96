import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tiny_runs import options_and_start

from keep import test as keep_test
from keep import train
from keep.data.tools import align, collect, pack, splits
from keep.utils import lock as module
from keep.utils.errors import UserError
from keep.utils.lock import lock


def owner(**changes) -> dict:
    return {"host": module._host(), "pid": os.getpid(), "started": module._start_time(os.getpid()), "group": "",
            "since": "2026-01-02 03:04:05", "key": "0"} | changes  # fmt: skip


def locks(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


def test_a_second_writer_is_refused_in_one_line_until_the_first_is_done(tmp_path: Path) -> None:
    out = tmp_path / "runs/a"
    with lock(out):
        assert locks(out.parent) == [".a.lock"]
        with pytest.raises(UserError, match=rf"a: process {os.getpid()} on \S+ writes it since 20\S+ \S+; wait for it"):
            lock(out).__enter__()
        with lock(tmp_path / "runs/a.b"), lock(tmp_path / "runs/b"):  # others are free
            pass
        assert locks(out.parent) == [".a.lock"]
    assert not out.parent.exists()  # it was made for the lock, and is empty
    with lock(out):
        out.touch()
    assert list(out.parent.iterdir()) == [out]


def test_an_error_releases_it(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), lock(tmp_path / "a"):
        raise RuntimeError
    assert not locks(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [{"pid": 2**22 + 1}, {"started": "1"}],  # no such process; another process with the same number
)
def test_the_lock_of_a_dead_process_is_removed(tmp_path: Path, changes: dict, caplog) -> None:
    (tmp_path / ".a.lock").write_text(json.dumps(owner(**changes)))
    with lock(tmp_path / "a"):
        content = json.loads((tmp_path / ".a.lock").read_text())
        assert content["pid"] == os.getpid()
        assert content["key"] != "0"
    assert not locks(tmp_path)
    assert "ended without removing" in caplog.text


def test_a_killed_process_does_not_block_the_next(tmp_path: Path) -> None:
    held = f"held = lock({str(tmp_path / 'a')!r}); held.__enter__()"
    code = f"import os; from keep.utils.lock import lock; {held}; os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code], check=False)
    assert locks(tmp_path) == [".a.lock"]
    with lock(tmp_path / "a"):
        pass
    assert not locks(tmp_path)


def test_another_machine_counts_as_alive_while_it_gives_signs_of_life(tmp_path: Path) -> None:
    file = tmp_path / ".a.lock"
    file.write_text(json.dumps(owner(host="other/pid:[1]", pid=77)))
    with pytest.raises(UserError, match="process 77 on other writes it since"):
        lock(tmp_path / "a").__enter__()
    then = file.stat().st_mtime - module.SILENCE - 1
    os.utime(file, (then, then))
    with lock(tmp_path / "a"):
        pass
    assert not locks(tmp_path)


def test_the_owner_gives_signs_of_life(tmp_path: Path, monkeypatch) -> None:
    beaten = threading.Event()
    monkeypatch.setattr(module, "BEAT", 0.001)
    monkeypatch.setattr(module.os, "utime", lambda *_: beaten.set())
    with lock(tmp_path / "a"):
        assert beaten.wait(10)


def test_parts_share_an_output_within_their_group(tmp_path: Path) -> None:
    out = tmp_path / "a"
    with lock(out, "rank0", "g"):
        with lock(out, "rank1", "g"):
            pass
        for part, group in (("rank0", "g"), ("rank1", "h"), ("", "")):
            with pytest.raises(UserError, match="writes it since"):
                lock(out, part, group).__enter__()
        assert locks(tmp_path) == [".a.lock-rank0"]
    with lock(out), pytest.raises(UserError, match="writes it since"):
        lock(out, "rank0", "g").__enter__()


def test_a_lock_that_cannot_be_read_or_written_is_named(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / ".a.lock").write_text("")
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    with pytest.raises(UserError, match=r"\.a\.lock: cannot be read; if no process writes .*a, delete it"):
        lock(tmp_path / "a").__enter__()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/\.a\.lock: cannot write: "):
        lock(tmp_path / "file/a").__enter__()


def test_train_test_and_data_tools_hold_what_they_write(clips: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    path, settings = options_and_start(1, clips, tmp_path / "runs")
    training = ["-opt", str(path), *(x for s in settings for x in ("--set", s))]
    (tmp_path / "test.yml").write_text(
        f"name: t\ndata: {{a: {{type: VideoClips, root: {clips}, size: 32, degradation: [Downsample]}}}}\n"
        "restorers: {bicubic: Bicubic}\nmetrics: [PSNR]\n"
    )
    runs = {
        "runs/stage1": lambda: train.main(training),
        "results/t": lambda: keep_test.main(["-opt", "test.yml"]),
        "packed.zip": lambda: pack.main([str(clips), "packed.zip"]),
        "aligned": lambda: align.main([str(clips), "aligned"]),
        "splits": lambda: splits.main([str(clips), "splits", "--size", "32"]),
        "collected": lambda: collect.main([str(clips), "collected"]),
    }
    (tmp_path / "runs/stage1").mkdir(parents=True)
    for out, run in runs.items():
        with lock(tmp_path / out):
            before = sorted(tmp_path.rglob("*"))
            assert run() == 2, out
            assert sorted(tmp_path.rglob("*")) == before, out
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {tmp_path / out if 'runs' in out else out}: process {os.getpid()} on "), out
