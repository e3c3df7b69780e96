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
