import json
import re
from pathlib import Path

import numpy as np
import pytest
from tqdm import tqdm

from keep.data.clips import VideoClips
from keep.data.images import read_images
from keep.data.tools import collect, collect_clips, collect_video
from keep.data.video_io import read_video, write_video
from keep.faces.align import TEMPLATE_512, transform
from keep.faces.detect import Face
from keep.utils.errors import UserError

RED, BLUE = (230, 40, 30), (30, 50, 240)
OPTIONS = ["--shots", "builtin", "--size", "64", "--min-length", "10", "--max-length", "20", "--min-face", "20"]


def people(frames: int, *who: tuple[int, int, tuple[int, int, int]], background: int = 90, height: int = 120):
    """Frames with a coloured square for each (x, y, colour); they move to the right, one pixel a frame."""
    clip = np.full((frames, height, 200, 3), background, np.uint8)
    clip[:, ::2, ::3] += 25
    for t in range(frames):
        for x, y, colour in who:
            clip[t, y - 16 : y + 16, x + t - 16 : x + t + 16] = colour
            clip[t, y - 3 : y + 3, x + t - 3 : x + t + 3] = 255
    return clip


REAL_SHEET = collect_video.write_sheet


class Squares:
    """Stands in for a face detector: finds the coloured squares."""

    name, longest_side = "squares", None

    def to(self, device):
        return self

    def __call__(self, frame):
        faces = []
        for channel in (0, 2):
            strong = (frame[..., channel] > 180) & (frame[..., 2 - channel] < 110)
            y, x = np.nonzero(strong)
            if len(x) > 200:
                x0, x1, y0, y1 = x.min(), x.max(), y.min(), y.max()
                centre, side = np.array([x0 + x1, y0 + y1]) / 2, max(x1 - x0, y1 - y0)
                points = centre + (TEMPLATE_512 - TEMPLATE_512.mean(0)) * side / 300
                faces.append(Face(np.array([x0, y0, x1, y1], np.float32), points.astype(np.float32), 0.9))
        return sorted(faces, key=lambda face: -face.area)


@pytest.fixture(autouse=True)
def _squares(monkeypatch):
    monkeypatch.setattr(collect, "default_detector", Squares)
    monkeypatch.setattr(collect_video, "write_sheet", lambda *_: None)  # drawing is slow; test_sheet has its own


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A video of two shots (two people for 26 frames, then one for 44), one without a face, and a broken one."""
    folder = tmp_path / "raw"
    (folder / "more").mkdir(parents=True)
    shots = people(26, (20, 60, RED), (130, 60, BLUE)), people(44, (60, 70, BLUE), background=10)
    write_video(folder / "talk.mkv", np.concatenate(shots), 25, codec="ffv1")
    write_video(folder / "more/empty.mp4", people(12), 25)
    (folder / "more/broken.mp4").write_bytes(b"no video at all")
    return folder


def run(raw: Path, out: Path, *options: str) -> tuple[int, dict, dict]:
    status = collect.collect([str(raw), str(out), *OPTIONS, *options])
    return status, *(json.loads((out / f"{name}.json").read_text()) for name in ("manifest", "report"))


def test_shots_tracks_and_clips(raw, tmp_path, capsys):
    status, manifest, report = run(raw, tmp_path / "out", "--codec", "ffv1")
    assert status == 1, "a video could not be read"
    found = sorted((c["shot"], c["frames"]) for c in manifest["clips"])
    # 26 and 44 frames in parts of 10 to 20.
    assert found == sorted([(0, [0, 13]), (0, [13, 26])] * 2 + [(1, [26, 41]), (1, [41, 56]), (1, [56, 70])])
    assert len({c["clip"] for c in manifest["clips"]}) == 7
    assert {c["detector"] for c in manifest["clips"]} == {"squares"}
    assert report["totals"]["videos"] == 3
    assert (report["totals"]["shots"], report["totals"]["tracks"], report["totals"]["clips"]) == (3, 3, 7)
    assert report["reasons"] == {"no face": 1}
    assert report["rejects"][0]["source"].endswith("empty.mp4")
    assert ["not a video" in line for line in report["unreadable"].values()] == [True]
    printed = capsys.readouterr().out
    assert "broken.mp4: not a video file" in printed
    assert "1 no face" in printed


def test_clips_are_aligned_and_read_by_the_dataset(raw, tmp_path):
    _, manifest, _ = run(raw, tmp_path / "out", "--codec", "ffv1")
    root = tmp_path / "out/clips"
    dataset = VideoClips(root=str(root), size=64)
    assert len(dataset) == 7
    assert dataset[0, 0]["gt"].shape[1:] == (3, 64, 64)
    for entry in manifest["clips"]:
        frames = read_video(root / entry["clip"])
        assert len(frames) == entry["length"] == entry["frames"][1] - entry["frames"][0]
        with np.load(root / entry["landmarks"]) as arrays:
            np.testing.assert_array_equal(arrays["frames"], np.arange(*entry["frames"]))
            # The white mark stands at the square's centre, which is the mean of the five points.
            rows = zip(frames, *(arrays[k] for k in ("matrices", "points", "points_found")), strict=True)
            for frame, matrix, points, found in rows:
                np.testing.assert_allclose(transform(matrix, points), TEMPLATE_512 / 8, atol=0.3)
                x, y = transform(matrix, found.mean(0))
                assert frame[round(y), round(x)].min() > 150


def test_landmarks_are_smoothed_within_a_shot_only(raw, tmp_path):
    _, manifest, _ = run(raw, tmp_path / "out")
    for entry in manifest["clips"]:
        if entry["frames"] == [26, 41]:
            with np.load(tmp_path / "out/clips" / entry["landmarks"]) as arrays:
                np.testing.assert_allclose(arrays["points_found"][0, :, 0].mean(), 60, atol=1)
                # Motion at an even speed: only the ends of a track lag, by less than the filter's width.
                np.testing.assert_allclose(arrays["points"][14], arrays["points_found"][14], atol=1)
                assert 0.5 < arrays["points"][0, 0, 0] - arrays["points_found"][0, 0, 0] < 5


@pytest.mark.parametrize(
    ("options", "reason", "count"),
    [
        (["--min-face", "60"], "face too small", 3),
        (["--min-sharpness", "1e6"], "too blurred", 7),
        (["--min-length", "30", "--max-length", "50"], "too short", 2),
        (["--max-outside", "0"], "too far beyond the frame", 1),
        (["--min-score", "0.95"], "face too uncertain", 3),
        (["--max-clips", "1"], "beyond --max-clips", 4),
    ],
)
def test_rejects_are_named_and_counted(options, reason, count, raw, tmp_path):
    _, manifest, report = run(raw, tmp_path / "out", *options)
    assert report["reasons"][reason] == count
    rejects = [r for r in report["rejects"] if r["reason"] == reason]
    assert all(r["source"].endswith("talk.mkv") and len(r["frames"]) == 2 for r in rejects)
    assert len(list((tmp_path / "out/clips/talk").glob("*.mp4"))) == len(manifest["clips"])


def test_detection_every_few_frames(raw, tmp_path):
    _, manifest, _ = run(raw, tmp_path / "out", "--every", "4")
    spans = {tuple(c["frames"]) for c in manifest["clips"] if c["shot"] == 1}
    assert min(s[0] for s in spans) == 28  # the first frame of the shot that is looked at
    assert max(s[1] for s in spans) == 69


def test_a_second_run_makes_only_what_is_missing(raw, tmp_path, monkeypatch):
    out = tmp_path / "out"
    _, first, _ = run(raw, out)
    times = {p: p.stat().st_mtime_ns for p in (out / "clips").rglob("*.mp4")}
    (raw / "more/broken.mp4").unlink()
    write_video(raw / "more/new.mp4", people(15, (60, 60, RED)), 25)
    status, second, report = run(raw, out)
    assert status == 0
    assert {p: p.stat().st_mtime_ns for p in times} == times
    assert len(second["clips"]) == len(first["clips"]) + 1
    assert report["unreadable"] == {}
    run(raw, out, "--max-length", "15")  # other options: all clips are made again
    assert not any(p.exists() and p.stat().st_mtime_ns == times[p] for p in times)


def test_clips_that_were_moved_are_not_made_again(raw, tmp_path, capsys):
    out = tmp_path / "out"
    run(raw, out)
    (out / "val").mkdir()
    (out / "clips/talk").rename(out / "val/talk")
    _, manifest, _ = run(raw, out)
    assert {c["folder"] for c in manifest["clips"]} == {"val"}
    assert not (out / "clips/talk").exists()
    _, manifest, _ = run(raw, out, "--max-length", "15")  # other options: made again, in the same folder
    assert {c["folder"] for c in manifest["clips"]} == {"val"}

    (out / "val/talk").rename(tmp_path / "elsewhere")
    capsys.readouterr()
    _, manifest, _ = run(raw, out, "--max-length", "15")
    assert {c["folder"] for c in manifest["clips"]} == {None}
    assert f"{len(manifest['clips'])} clips are no longer in" in capsys.readouterr().out
    (out / "sources/talk.json").unlink()
    _, manifest, _ = run(raw, out, "--max-length", "15")
    assert {c["folder"] for c in manifest["clips"]} == {"clips"}


def test_validation_gets_every_nth_video_that_gives_clips(tmp_path, capsys):
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    for name in ("a", "b", "c", "e"):
        write_video(raw / f"{name}.mp4", people(12, *[(60, 60, RED)] * (name != "b")), 25)
    status, manifest, _ = run(raw, out, "--val", "2")
    assert status == 0
    assert {c["clip"].split("/")[0]: c["folder"] for c in manifest["clips"]} == {"a": "clips", "c": "val", "e": "clips"}
    write_video(raw / "d.mp4", people(12, (60, 60, RED)), 25)
    _, manifest, _ = run(raw, out, "--val", "2")  # what is there stays
    folders = {c["clip"].split("/")[0]: c["folder"] for c in manifest["clips"]}
    assert folders == {"a": "clips", "c": "val", "d": "clips", "e": "clips"}
    assert sorted(p.name for p in (out / "val").iterdir()) == ["c"]
    assert "4 clips (1 in val)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (["--min-face", "60"], r"the largest of 3 faces has 3\d px: lower --min-face \(60\)"),
        (["--min-length", "50", "--max-length", "50"], r"the longest of 3 stretches has 44 frames: lower --min-length"),
        (["--min-sharpness", "1e6"], r"the sharpest of 7 clips has [\d.]+: lower --min-sharpness"),
        (["--min-score", "0.95"], r"the best of 3 scores is 0.9: lower --min-score \(0.95\)"),
        (
            ["--max-outside", "0", "--min-face", "30"],
            r"of 3 crops the smallest share outside is 0.\d+: raise --max-outside",
        ),
    ],
)
def test_when_no_clip_is_kept_the_nearest_reject_is_named(options, advice, raw, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(collect_clips, "outside_share", lambda *_: 0.25)
    (raw / "more/broken.mp4").unlink()
    assert run(raw, tmp_path / "out", *options)[0] == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: no clip was kept: ")
    assert re.search(advice, line)
    assert "no face was found in 1 video: try another --detector" in line


def test_the_bar_counts_frames(raw, tmp_path, monkeypatch):
    assert [collect.stated_frames(p) for p in collect.find_videos(raw)] == [0, 12, 70]
    bars = []

    def recorded(**options):
        bars.append(tqdm(**options))
        return bars[-1]

    monkeypatch.setattr(collect, "progress_bar", recorded)
    for _ in range(2):  # the second run looks at nothing again
        run(raw, tmp_path / "out")
        assert (bars[0].n, bars[0].total, bars[0].unit) == (82, 82, " frames")
        bars.clear()


def test_an_interrupted_video_leaves_nothing_under_its_name(raw, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(collect_video, "write_sheet", stop)
    with pytest.raises(KeyboardInterrupt):
        run(raw / "talk.mkv", tmp_path / "out")
    assert [p.name for p in (tmp_path / "out/clips").iterdir()] == []
    monkeypatch.undo()
    monkeypatch.setattr(collect, "default_detector", Squares)
    monkeypatch.setattr(collect_video, "write_sheet", lambda *_: None)
    assert run(raw / "talk.mkv", tmp_path / "out")[0] == 0
    assert [p.name for p in (tmp_path / "out/clips").iterdir()] == ["talk"]


def test_a_video_that_breaks_off_is_named(raw, tmp_path):
    (raw / "talk.mkv").unlink()
    write_video(raw / "talk.mp4", people(30, (60, 60, RED)), 25)
    data = (raw / "talk.mp4").read_bytes()
    (raw / "talk.mp4").write_bytes(data[: len(data) // 2])
    status, _, report = run(raw, tmp_path / "out")
    assert status == 1
    problem = next(line for path, line in report["unreadable"].items() if path.endswith("talk.mp4"))
    assert re.search("truncated|damaged", problem)
    assert not (tmp_path / "out/clips/talk").exists()


def test_sheet(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(collect_video, "write_sheet", REAL_SHEET)
    run(raw / "talk.mkv", tmp_path / "out", "--max-clips", "1")
    image = read_images([tmp_path / "out/sheets/talk.png"])[0]
    assert image.shape[1] > 1000
    assert image.std() > 10


def test_a_clip_of_two_people_is_rejected(raw, tmp_path, monkeypatch):
    """The square changes its colour, and so its identity, in the middle of a shot."""
    clip = people(20, (60, 60, RED))
    half = people(20, (60, 60, BLUE))
    write_video(raw / "more/two.mkv", np.concatenate([clip[:8], half[8:]]), 25, codec="ffv1")

    class Colour:
        name, measure = "colour", "cosine"

        def to(self, device):
            return self

        def __call__(self, frames, points):
            x, y = points[0, 0].round().astype(int)
            v = frames[0, y, x].astype(np.float32)
            return (v / np.linalg.norm(v))[None]

    monkeypatch.setattr(collect, "network", lambda registry, text: Colour())
    monkeypatch.setattr(collect_clips, "SAMPLE_EVERY", 3)
    _, manifest, report = run(raw / "more/two.mkv", tmp_path / "out", "--identity", "Colour")
    assert manifest["clips"] == []
    assert report["reasons"] == {"more than one person": 1}


def test_bad_arguments(raw, tmp_path):
    (tmp_path / "none").mkdir()
    (raw / "talk.mp4").write_bytes(b"")
    for argv, message in (
        ([raw / "nothing", tmp_path / "out"], "no such file or folder"),
        ([tmp_path / "none", tmp_path / "out"], "holds no video"),
        ([raw, tmp_path / "out"], "2 videos are named talk"),
        ([raw, raw / "out"], "choose another folder"),
        ([raw, tmp_path / "out", "--every", "0"], "--every: must be a whole number from 1"),
        ([raw, tmp_path / "out", "--max-length", "50"], "is less than"),
        ([raw, tmp_path / "out", "--val", "1"], "--val must be at least 2"),
        ([raw, tmp_path / "out", "--codec", "libx266"], "--codec: invalid choice"),
        ([raw / "other", raw / "talk.mp4/out"], "cannot be the output folder: .*talk.mp4 is a file"),
    ):
        with pytest.raises(UserError, match=message):
            collect.collect([str(a) for a in argv])
