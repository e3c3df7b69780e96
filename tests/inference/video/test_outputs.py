"""Names of outputs, and how ranks share the videos."""

import os
from pathlib import Path

import pytest

from keep.inference.video.outputs import list_jobs, other_files, refuse_existing, share
from keep.inference.video.settings import Settings
from keep.utils.errors import UserError


def test_every_job_belongs_to_one_rank():
    jobs = [(Path(f"{n}"), Path(f"{n}.out")) for n in range(7)]
    shares = [share(jobs, rank, 3) for rank in range(3)]
    assert sorted(job for s in shares for job in s) == jobs


def test_names_of_outputs(tmp_path):
    for name in ("a.mp4", "a.avi", "sub/c.webm", "d.MOV"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    names = {str(out.relative_to(tmp_path)) for _, out in list_jobs(tmp_path / "in", tmp_path / "o", False, "h264")}
    assert names == {"o/a.mp4", "o/a.mkv", "o/sub/c.mkv", "o/d.mov"}
    names = {out.name for _, out in list_jobs(tmp_path / "in", tmp_path / "o", False, "ffv1")}
    assert names == {"a.mp4.mkv", "a.avi.mkv", "c.mkv", "d.mkv"}, "only those that would be the same get longer names"
    (tmp_path / "in" / "a.mkv").touch()
    names = {out.name for _, out in list_jobs(tmp_path / "in", tmp_path / "o", False, "h264")}
    assert names == {"a.mp4", "a.mkv", "a.avi.mkv", "c.mkv", "d.mov"}
    names = {out.name for _, out in list_jobs(tmp_path / "in", tmp_path / "o", True, "h264")}
    assert names == {"a.mp4", "a.mkv", "a.avi", "c", "d"}
    single = tmp_path / "in" / "a.avi"
    assert list_jobs(single, tmp_path / "o.mp4", False, "h264") == [(single, tmp_path / "o.mp4")]
    assert list_jobs(single, tmp_path / "o", False, "h264") == [(single, tmp_path / "o" / "a.mkv")]


def test_pipes_are_refused_with_the_reason(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "in.mp4").touch()
    for source in (Path("-"), tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(UserError, match="a video is read twice, so it cannot come from a pipe"):
            list_jobs(source, tmp_path / "out.mp4", False, "h264")
    for output in (Path("-"), tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(UserError, match="cannot go into a pipe"):
            list_jobs(tmp_path / "in.mp4", output, False, "h264")
    assert not Path("-").exists()


def test_videos_of_all_cameras_are_found_and_other_files_named(tmp_path):
    folder = tmp_path / "in"
    names = ["00001.MTS", "a.wmv", "b.3gp", "c.m2ts", "d.VOB", "e.flv", "f.dv", "g.mxf", "sub/h.ogv"]
    for name in (*names, "notes.txt", "sub/photo.JPG", ".hidden"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    jobs = list_jobs(folder, tmp_path / "out", False, "h264")
    assert sorted(str(video.relative_to(folder)) for video, _ in jobs) == sorted(names)
    assert all(output.suffix == ".mkv" for _, output in jobs)
    assert [str(file.relative_to(folder)) for file in other_files(folder)] == ["notes.txt", "sub/photo.JPG"]
    assert other_files(folder / "a.wmv") == []
    for name in names:
        (folder / name).unlink()
    assert other_files(folder) == [], "a folder of frames"


@pytest.mark.parametrize("name", ["out.mp4", "out.compare.mp4", "out.plots"])
def test_existing_outputs_are_refused(tmp_path, name):
    refuse_existing(tmp_path / "out.mp4", Settings(compare=True, plots=True))
    (tmp_path / name).touch()
    with pytest.raises(
        UserError, match=rf"{name}: exists already; name another output, or replace it with --overwrite"
    ):
        refuse_existing(tmp_path / "out.mp4", Settings(compare=True, plots=True))
    if name != "out.mp4":
        refuse_existing(tmp_path / "out.mp4", Settings())
