"""Files appear complete or not at all."""

import os
import subprocess
import sys

import numpy as np
import pytest
from videos import make

from keep.data.mux import FrameWriter, VideoSource, VideoWriter
from keep.utils.errors import UserError
from keep.utils.io import remove_leftovers


def test_nothing_is_left_when_the_work_fails(tmp_path, texture):
    source = make(tmp_path / "in.mp4", texture(12), audio=True)
    video = VideoSource(source)

    def fail(writer: VideoWriter | FrameWriter) -> None:
        with writer:
            for frame in video:
                writer.write(frame.image, frame)
                if frame.index == 6:
                    raise RuntimeError("the network failed")

    with pytest.raises(RuntimeError, match="the network failed"):
        fail(VideoWriter(tmp_path / "out.mp4", video, (48, 64)))
    with pytest.raises(RuntimeError, match="the network failed"):
        fail(FrameWriter(tmp_path / "frames"))
    with pytest.raises(UserError, match="there is no folder"):
        VideoWriter(tmp_path / "none" / "out.mp4", video, (48, 64))
    with pytest.raises(UserError, match=r"out\.xyz: \.xyz cannot be written, only \.m4v, \.mkv, \.mov, \.mp4"):
        VideoWriter(tmp_path / "out.xyz", video, (48, 64))
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def test_what_a_killed_run_left_is_removed(tmp_path):
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    dead, alive = int(done.stdout), os.getppid()
    stale, foreign = (
        tmp_path / f".out.{dead}-1a.mp4",
        [tmp_path / f".out.{alive}-1a.mp4", tmp_path / f".other.{dead}-1a.mp4"],
    )
    for file in (stale, *foreign):
        file.touch()
    folder = tmp_path / f".frames.{dead}-1a"
    folder.mkdir()
    (folder / "0.png").touch()
    remove_leftovers(tmp_path / "out.mp4")
    remove_leftovers(tmp_path / "frames")
    assert not stale.exists()
    assert not folder.exists()
    assert all(file.exists() for file in foreign)


def test_a_kill_leaves_nothing_under_the_name(tmp_path, texture):
    """Not even what cannot be caught; the next run removes what it left under another."""
    make(tmp_path / "in.mp4", texture(60))
    code = f"""
import os, signal
from keep.data.mux import VideoSource, VideoWriter
video = VideoSource({str(tmp_path / "in.mp4")!r})
with VideoWriter({str(tmp_path / "out.mp4")!r}, video, (48, 64), preset="ultrafast") as writer:
    for frame in video:
        writer.write(frame.image, frame)
        if frame.index == 55:
            os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    left = [p.name for p in tmp_path.iterdir() if p.name != "in.mp4"]
    assert len(left) == 1
    assert left[0].startswith(".out.")
    remove_leftovers(tmp_path / "out.mp4")
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def test_a_full_disk(tmp_path, texture):
    """A limit on the size of files stands in for it: writing fails in the same place."""
    make(tmp_path / "in.mp4", np.concatenate([texture(60, 256, 256, seed) for seed in range(2)]), crf="5")
    code = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from keep.data.mux import VideoSource, VideoWriter
from keep.utils.errors import UserError
from keep.utils.io import remove_leftovers
video = VideoSource({str(tmp_path / "in.mp4")!r})
try:
    with VideoWriter({str(tmp_path / "out.mp4")!r}, video, (256, 256), crf=1) as writer:
        for frame in video:
            writer.write(frame.image, frame)
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "out.mp4: cannot be written: File too large" in done.stdout, done.stdout + done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]
