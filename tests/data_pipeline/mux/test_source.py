"""Damage is counted, intact files have none, and files without video are refused."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from videos import copy, images_of, make, times_of

from keep.data.mux import VideoSource, remux
from keep.utils.errors import UserError


def test_avi_has_no_time_stamps_but_all_its_frames(tmp_path, texture, encode):
    source = encode(tmp_path / "in.avi", texture(20), bf="2", g="8")
    video = VideoSource(source)
    assert len(list(video)) == 20
    assert not video.lost
    copy(source, tmp_path / "out.mp4")
    np.testing.assert_allclose([float(t) for t in times_of(tmp_path / "out.mp4")], np.arange(20) / 25, atol=1e-3)


def test_names_that_ffmpeg_would_take_for_addresses(tmp_path, texture, monkeypatch):
    make(tmp_path / "in.mp4", texture(12))
    (tmp_path / "in.mp4").rename(tmp_path / "12:30.mp4")
    monkeypatch.chdir(tmp_path)
    copy(Path("12:30.mp4"), Path("12:31.mp4"))
    remux(VideoSource("12:31.mp4"), "12:32.mkv")
    assert len(list(VideoSource("12:32.mkv"))) == 12


def test_a_truncated_mp4_gives_what_it_holds(tmp_path, texture):
    intact = make(tmp_path / "in.mp4", texture(60), movflags="faststart", g="10")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(intact.read_bytes()[: int(intact.stat().st_size * 0.6)])
    video = VideoSource(cut)
    frames = list(video)
    assert 10 < len(frames) < 60
    assert video.lost == 60 - len(frames)
    assert np.array_equal(frames[9].image, images_of(intact)[9])


@pytest.mark.parametrize(("pace", "near"), [(40, 2), (100, 4)])
def test_a_truncated_mkv_gives_what_it_holds(tmp_path, texture, pace, near):
    """Of frames every 40 ms, and every 100 ms where the header names 25 frames a second."""
    intact = make(tmp_path / "in.mkv", texture(60), [pace * t for t in range(60)], g="10")
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(intact.read_bytes()[: int(intact.stat().st_size * 0.5)])
    video = VideoSource(cut)
    count = len(list(video))
    assert 10 < count < 55
    assert video.lost == pytest.approx(60 - count, abs=near)


def test_damage_in_the_middle_is_passed_over(tmp_path, texture):
    intact = make(tmp_path / "in.mp4", texture(60), movflags="faststart", g="10")
    data = bytearray(intact.read_bytes())
    at = len(data) // 2
    data[at : at + 2000] = bytes(2000)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(data)
    video = VideoSource(broken)
    frames = list(video)
    assert len(frames) > 40
    assert video.lost + video.damaged > 0
    assert len(frames) + video.lost == 60
    assert len(list(video)) == len(frames), "both passes see the same frames"


def test_whole_files_are_not_called_damaged(tmp_path, texture, encode):
    names = {"a.mp4": {"bf": "3"}, "b.mkv": {"bf": "3"}, "c.ts": {"bf": "3"}, "d.avi": {"bf": "2"}}
    for name, options in names.items():
        video = VideoSource(encode(tmp_path / name, texture(30), **options))
        assert len(list(video)) == 30, name
        assert (video.lost, video.damaged) == (0, 0), name


def test_what_is_no_video(tmp_path, texture):
    (tmp_path / "text.mp4").write_text("no video\n" * 99)
    (tmp_path / "notes.txt").write_text("no video\n" * 99)
    cv2.imwrite(str(tmp_path / "photo.png"), texture(1)[0])
    intact = make(tmp_path / "in.mp4", texture(30))
    (tmp_path / "headless.mp4").write_bytes(intact.read_bytes()[:2000])
    (tmp_path / "zero.mp4").touch()
    for name in ("text.mp4", "notes.txt", "photo.png", "headless.mp4", "zero.mp4"):
        with pytest.raises(UserError, match=rf"{name}: not a video file"):
            VideoSource(tmp_path / name)
    make(tmp_path / "both.mp4", texture(3), audio=True)
    with av.open(str(tmp_path / "both.mp4")) as given, av.open(str(tmp_path / "sound.m4a"), "w") as output:
        sound = output.add_stream_from_template(given.streams.audio[0])
        for packet in given.demux(audio=0):
            if packet.size:
                packet.stream = sound
                output.mux(packet)
    with pytest.raises(UserError, match=r"sound\.m4a: has no video stream"):
        VideoSource(tmp_path / "sound.m4a")
    with pytest.raises(UserError, match="no such file"):
        VideoSource(tmp_path / "gone.mp4")
