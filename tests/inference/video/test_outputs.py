"""Names of outputs, and how ranks share the videos."""

from pathlib import Path

from keep.inference.video.outputs import list_jobs, share


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
