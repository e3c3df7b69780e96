"""What is said before pass 1, and that nothing which was known then fails in pass 2."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from drawn_faces import RED, Discs, Recorder, draw
from videos import SUBTITLES, make, packets_of, times_of

from keep import restore
from keep.inference import web
from keep.inference.video import Settings, Summary, Tools, restore_video
from keep.inference.video.preflight import preflight


def faces(frames: int) -> np.ndarray:
    return np.stack([draw([(RED, 60 + t, 60, 20)]) for t in range(frames)])


def restored(source: Path, output: Path, **settings) -> tuple[Summary, list[str]]:
    """The summary, and what was announced and done, in order."""
    events: list[str] = []
    summary = restore_video(
        source, output, Tools(Recorder(32), Discs()), Settings(preset="ultrafast", **settings),
        lambda what, done, total, tracks: events.append(what), events.append,
    )  # fmt: skip
    return summary, events


def test_the_lines_come_before_pass_1_and_on_the_page(tmp_path):
    (tmp_path / "s.srt").write_text(SUBTITLES)
    source = make(tmp_path / "in.mkv", faces(12), audio=True, subtitles=str(tmp_path / "s.srt"))
    summary, events = restored(source, tmp_path / "out.mp4")
    line = "subtitle stream 2 (subrip): left out: it does not fit into .mp4"
    assert events[:2] == [line, "finding faces"]
    assert summary.preflight == [line]
    assert line in web.describe(summary)
    assert restored(source, tmp_path / "out.mkv")[0].preflight == []
    assert restored(source, tmp_path / "frames", frames=True)[0].preflight == [
        "sound and other streams are left out: the output is a folder of frames"
    ]


def test_joined_recordings_are_restored_with_their_sound(tmp_path):
    part = make(tmp_path / "part.ts", faces(16), audio=True)
    (tmp_path / "in.ts").write_bytes(2 * part.read_bytes())
    for suffix in (".mp4", ".mkv"):
        summary, _ = restored(tmp_path / "in.ts", tmp_path / f"out{suffix}")
        assert (summary.frames, summary.lost, summary.broken) == (32, 0, False)
        assert "the time stamps jump 1 time (joined recordings): carried on without a gap" in summary.notes
        assert (np.diff([float(t) for t in times_of(tmp_path / f"out{suffix}")]) > 0.01).all()
        assert len(packets_of(tmp_path / f"out{suffix}", "audio")) == len(packets_of(tmp_path / "in.ts", "audio"))


@pytest.mark.parametrize("faces_in", [True, False])
def test_sizes_that_change_are_named(tmp_path, faces_in):
    parts = []
    for k, (height, width) in enumerate(((120, 240), (180, 360))):
        clip = faces(10) if faces_in else np.stack([draw([])] * 10)
        clip = np.stack([cv2.resize(image, (width, height)) for image in clip])
        parts.append(make(tmp_path / f"{k}.ts", clip, start=400 * k).read_bytes())
    (tmp_path / "in.ts").write_bytes(b"".join(parts))
    summary, _ = restored(tmp_path / "in.ts", tmp_path / "out.mkv")
    assert summary.frames == 20
    expected = "the size changes: 10 frames of 360×180 scaled to 240×120, the size of the first frame"
    assert expected in summary.notes


def test_damaged_sound_does_not_stop_the_pictures(tmp_path):
    """FFmpeg's muxers fail at AAC without its header, some packets after it."""
    source = make(tmp_path / "in.ts", faces(16), audio=True)
    with av.open(str(source)) as container:
        packet = [bytes(p) for p in container.demux(audio=0) if p.size][3]
    data = source.read_bytes()
    assert data.count(packet[:24]) == 1
    source.write_bytes(data.replace(packet[:24], bytes(24)))
    summary, _ = restored(source, tmp_path / "out.mp4")
    assert summary.frames == 16
    assert "1 packet of sound or subtitles damaged in the input, and left out" in summary.notes


def test_an_existing_output_is_kept(tmp_path, monkeypatch, capsys):
    source, out = make(tmp_path / "in.mp4", np.stack([draw([])] * 8)), tmp_path / "out.mp4"
    out.write_text("mine")
    monkeypatch.setattr("keep.inference.video.command.build_tools", lambda _: Tools(Recorder(32), Discs()))
    command = [str(source), "-o", str(out), "--device", "cpu"]
    assert restore.main(command) == 2
    assert "out.mp4: exists already" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert restore.main([*command, "--overwrite"]) == 0
    assert out.read_bytes() == source.read_bytes()


def test_other_files_of_a_folder_are_listed(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    make(tmp_path / "a.mp4", np.stack([draw([])] * 8)).rename(folder / "a.mp4")
    (folder / "notes.txt").touch()
    monkeypatch.setattr("keep.inference.video.command.build_tools", lambda _: Tools(Recorder(32), Discs()))
    assert restore.main([str(folder), "-o", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert "skipped, not videos: notes.txt" in capsys.readouterr().out


def test_a_folder_of_frames_has_nothing_to_lose(tmp_path):
    from keep.data.mux import FrameFolder

    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((8, 8, 3)))
    assert preflight(FrameFolder(tmp_path), tmp_path / "out.mp4", Settings()) == []
