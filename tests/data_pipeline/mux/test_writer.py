"""Frames, their times, duration and rotation are kept; what cannot be written is known at once."""

from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from videos import TIMES, copy, images_of, make, times_of

from keep.data.mux import FrameFolder, FrameWriter, VideoSource, VideoWriter, remux
from keep.data.video_io import read_video
from keep.utils.errors import UserError


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "h264"), (".mkv", "h264"), (".mp4", "h265"), (".mkv", "ffv1")])
def test_frames_and_their_times_are_kept(tmp_path, texture, suffix, codec):
    source = make(tmp_path / "in.mp4", texture(12), TIMES)
    copy(source, tmp_path / f"out{suffix}", codec=codec, crf=8)
    times = times_of(tmp_path / f"out{suffix}")
    np.testing.assert_allclose([float(t) for t in times], [t / 1000 for t in TIMES], atol=1e-3)
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        assert container.streams.video[0].codec_context.name == {"h265": "hevc"}.get(codec, codec)
    before, after = images_of(source), images_of(tmp_path / f"out{suffix}")
    assert after.shape == before.shape
    assert np.abs(after - before).mean() < (1e-9 if codec == "ffv1" else 4)  # hard-edged colours


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_videos_of_a_few_frames(tmp_path, texture, codec, count):
    copy(make(tmp_path / "in.mp4", texture(count)), tmp_path / "out.mp4", codec=codec)
    np.testing.assert_allclose([float(t) for t in times_of(tmp_path / "out.mp4")], np.arange(count) / 25, atol=1e-3)


def test_the_same_content_gives_the_same_bytes(tmp_path, texture):
    """FFmpeg numbers Matroska files and their streams at random if it is not told otherwise."""
    source = make(tmp_path / "in.mkv", texture(4), audio=True)
    for name in ("a.mkv", "b.mkv"):
        copy(source, tmp_path / name, codec="ffv1")
        remux(VideoSource(source), tmp_path / f"remuxed_{name}")
    assert (tmp_path / "a.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()
    assert (tmp_path / "remuxed_a.mkv").read_bytes() == (tmp_path / "remuxed_b.mkv").read_bytes()


def test_the_duration_is_kept(tmp_path, texture):
    for times in (None, TIMES):
        source = make(tmp_path / "in.mp4", texture(12), times)
        copy(source, tmp_path / "out.mp4")
        video = VideoSource(source)
        last = list(video)[-1]
        with av.open(str(tmp_path / "out.mp4")) as container:
            stream: Any = container.streams.video[0]
            assert stream.frames == 12
            seconds = float(stream.duration * stream.time_base)
        assert seconds == pytest.approx(float((last.pts + last.duration) * video.time_base), abs=0.001)
        assert times or seconds == pytest.approx(0.48, abs=0.001)


@pytest.mark.parametrize("angle", [90, 180, -90])
def test_rotation_is_kept(tmp_path, texture, angle):
    source = make(tmp_path / "in.mp4", texture(3), rotation=angle)
    video = VideoSource(source)
    assert (video.height, video.width) == read_video(source).shape[1:3]
    copy(source, tmp_path / "out.mp4", crf=5)
    with av.open(str(source)) as given, av.open(str(tmp_path / "out.mp4")) as kept:
        a, b = next(given.decode(video=0)), next(kept.decode(video=0))
        assert a.rotation == b.rotation != 0
        assert (a.width, a.height) == (b.width, b.height)
    difference = images_of(source) - images_of(tmp_path / "out.mp4")
    assert np.abs(difference).mean() < 4


def test_odd_sides_are_padded(tmp_path, texture):
    folder = tmp_path / "frames"
    folder.mkdir()
    for i, image in enumerate(texture(3, 33, 47)):
        cv2.imwrite(str(folder / f"{i}.png"), image[..., ::-1])
    video = FrameFolder(folder)
    with VideoWriter(tmp_path / "out.mp4", video, (33, 47)) as writer:
        for frame in video:
            writer.write(frame.image, frame)
    assert read_video(tmp_path / "out.mp4").shape == (3, 34, 48, 3)


def test_what_cannot_be_written_is_known_at_once(tmp_path, texture):
    video = VideoSource(make(tmp_path / "in.mp4", texture(3)))
    VideoWriter(tmp_path / "out.mp4", video, (48, 64)).check()
    FrameWriter(tmp_path / "frames").check()
    for suffix in (".webm", ".avi", ".ts"):  # they lose frame times, rotation or tags
        with pytest.raises(UserError, match=rf"out\{suffix}: \{suffix} cannot be written, only \.m4v, \.mkv"):
            VideoWriter(tmp_path / f"out{suffix}", video, (48, 64)).check()
    with pytest.raises(UserError, match=r"few players can read ffv1 in \.mp4; name an \.mkv file"):
        VideoWriter(tmp_path / "out.mp4", video, (48, 64), "ffv1")
    with pytest.raises(UserError, match="cannot be written"):
        VideoWriter(tmp_path / "out.mp4", video, (48, 400_000)).check()
    with pytest.raises(UserError, match="the frame rate must be from"):
        FrameFolder(frames_in(tmp_path / "in"), float("inf"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "in.mp4"]


def frames_in(folder: Path) -> Path:
    folder.mkdir()
    cv2.imwrite(str(folder / "0.png"), np.zeros((8, 8, 3)))
    return folder
