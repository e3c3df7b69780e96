"""Frame times come from the container's packets: also where they jump, and where AVI drops frames."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from videos import copy, make, packets_of, times_of

from keep.data.mux import VideoSource, remux

PAUSED = [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 20, 21, 22, 23, 24]  # frame numbers; the others are dropped


def joined(tmp_path: Path, texture: Any, suffix: str = ".ts", parts: int = 3, **options: Any) -> Path:
    """``parts`` recordings of 16 frames, joined as by ``cat``: each starts at the same time."""
    part = make(tmp_path / f"part{suffix}", texture(16), **options)
    path = tmp_path / f"joined{suffix}"
    path.write_bytes(part.read_bytes() * parts)
    return path


@pytest.mark.parametrize("audio", [False, True])
def test_joined_recordings_follow_each_other(tmp_path, texture, audio):
    source = joined(tmp_path, texture, audio=audio, g="8", bf="2")
    video = VideoSource(source)
    assert len(list(video)) == 48
    assert (video.jumps, video.lost, video.damaged) == (2, 0, 0)
    copy(source, tmp_path / "out.mp4")
    times = [float(t) for t in times_of(tmp_path / "out.mp4")]
    steps = np.diff(times)
    assert len(times) == 48
    assert np.allclose(np.delete(steps, [15, 31]), 0.04, atol=1e-3), "inside of each recording"
    assert (steps > 0).all()
    assert times[-1] == pytest.approx(2 * (14 * 0.064 if audio else 0.64) + 0.6, abs=0.3)
    if audio:
        given, kept = packets_of(source, "audio"), packets_of(tmp_path / "out.mp4", "audio")
        assert len(kept) == len(given), "nothing is refused in the second pass"
        sound = np.array([float(t) for _, t in kept])
        assert (np.diff(sound) > 0).all()
        part = len(sound) // 3
        drift = [sound[k * part] - times[16 * k] for k in range(3)]
        assert drift == pytest.approx([drift[0]] * 3, abs=0.03), "sound and pictures stay in step"


VARIABLE = [0, 1, 2, 3, 6, 7, 8, 9, 10, 14, 15, 16, 17, 18, 19, 20, 30, 31, 32, 33, 34, 35, 36, 37]  # of 1/25 s
PAUSES = [0, 1, 2, 5, 6, 7, 11, 12, 13, 14, 20, 21, 22, 23, 24, 30]


@pytest.mark.parametrize("bf", ["0", "2"])
@pytest.mark.parametrize("audio", [False, True])
@pytest.mark.parametrize("times", [VARIABLE, PAUSES, list(range(24))], ids=["variable", "pauses", "constant"])
def test_joined_recordings_of_any_rate_lose_nothing(tmp_path, texture, times, audio, bf):
    """Where they are joined, the counters of a broadcast do not fit, and FFmpeg marks a packet as damaged."""
    part = make(tmp_path / "part.ts", texture(len(times)), times=[40 * t for t in times], audio=audio, g="8", bf=bf)
    (tmp_path / "in.ts").write_bytes(part.read_bytes() * 2)
    video = VideoSource(tmp_path / "in.ts")
    assert len(list(video)) == 2 * len(times)
    assert (video.jumps, video.lost, video.damaged) == (1, 0, 0)


def test_joined_recordings_whose_header_names_another_rate_lose_nothing(tmp_path, texture):
    """H.264 may name the rate of fields: 50 for 25 frames a second."""
    with av.open(str(tmp_path / "part.ts"), "w") as output:
        stream: Any = output.add_stream("libx264", rate=50, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = texture(1).shape[2], texture(1).shape[1], "yuv420p"
        for i, image in enumerate(texture(24)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = 2 * i, Fraction(1, 50)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    (tmp_path / "in.ts").write_bytes((tmp_path / "part.ts").read_bytes() * 2)
    video = VideoSource(tmp_path / "in.ts")
    assert (len(list(video)), video.jumps, video.lost) == (48, 1, 0)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_raw_dv_has_its_frame_rate(tmp_path, suffix):
    """FFmpeg takes the unit of its time stamps, 1/60000 s, for its average rate."""
    images = np.random.default_rng(0).integers(0, 256, (10, 36, 45, 3), np.uint8).repeat(16, 1).repeat(16, 2)
    source = make(tmp_path / "in.dv", images, codec="dvvideo")
    assert VideoSource(source).fps == 25
    copy(source, tmp_path / f"out{suffix}")
    np.testing.assert_allclose([float(t) for t in times_of(tmp_path / f"out{suffix}")], np.arange(10) / 25, atol=1e-3)
    assert VideoSource(tmp_path / f"out{suffix}").fps == pytest.approx(25, rel=0.01)


def test_joined_recordings_go_into_another_container(tmp_path, texture):
    source = joined(tmp_path, texture, audio=True, g="8")
    remux(VideoSource(source), tmp_path / "out.mkv")
    times = [float(t) for t in times_of(tmp_path / "out.mkv")]
    assert len(times) == 48
    assert (np.diff(times) > 0).all()
    assert len(packets_of(tmp_path / "out.mkv", "audio")) == len(packets_of(source, "audio"))


def test_a_pause_between_joined_recordings_is_closed(tmp_path, texture):
    """As in a DVR file whose clock went on: FFmpeg's copy closes more than ten seconds."""
    parts = [make(tmp_path / f"{k}.ts", texture(16), start=1000 * 600 * k, audio=True).read_bytes() for k in range(2)]
    (tmp_path / "in.ts").write_bytes(b"".join(parts))
    video = VideoSource(tmp_path / "in.ts")
    frames = list(video)
    assert (len(frames), video.jumps, video.lost) == (32, 1, 0)
    assert float((frames[-1].pts - frames[0].pts) * video.time_base) < 2


@pytest.mark.parametrize(("codec", "bf"), [("mpeg4", "0"), ("mpeg4", "2"), ("libx264", "0"), ("mjpeg", "0")])
def test_dropped_frames_of_an_avi_keep_their_time(tmp_path, texture, codec, bf):
    """FFmpeg writes an empty chunk for each frame that is missing, as cameras and capture programs do."""
    source = tmp_path / "in.avi"
    with av.open(str(source), "w") as output:
        options = {} if codec == "mjpeg" else {"bf": bf}
        stream: Any = output.add_stream(codec, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        for number, image in zip(PAUSED, texture(len(PAUSED)), strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    video = VideoSource(source)
    frames = list(video)
    times = [float(frame.pts * video.time_base) for frame in frames]
    np.testing.assert_allclose(times, np.array(PAUSED) / 25, atol=1e-6)
    assert (video.lost, video.damaged) == (0, 0)
    copy(source, tmp_path / "out.mkv")
    np.testing.assert_allclose([float(t) for t in times_of(tmp_path / "out.mkv")], np.array(PAUSED) / 25, atol=2e-3)
