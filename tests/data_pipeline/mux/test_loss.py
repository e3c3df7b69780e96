"""Loss inside a file is measured against its time stamps; long frames and late starts are no loss."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from videos import make

from keep.data.mux import VideoSource
from keep.data.mux.matroska import CLUSTER
from keep.data.mux.reading import Packets


def counts(path: Path) -> tuple[int, int]:
    """(frames decoded, frames lost)."""
    video = VideoSource(path)
    return len(list(video)), video.lost


@pytest.mark.parametrize("audio", [False, True])
@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".ts"])
def test_a_part_that_is_overwritten_is_lost(tmp_path, texture, suffix, audio):
    options: Any = {"crf": "12", "g": "10"} if suffix != ".webm" else {"g": "10"}
    codec = "libvpx" if suffix == ".webm" else "libx264"
    path = make(tmp_path / f"in{suffix}", texture(60), audio=audio and suffix != ".webm", codec=codec, **options)
    assert counts(path) == (60, 0)
    data = bytearray(path.read_bytes())
    begin, length = len(data) // 3, len(data) // 4
    data[begin : begin + length] = bytes(length)
    path.write_bytes(data)
    frames, lost = counts(path)
    assert 25 < frames < 57
    assert frames + lost == pytest.approx(60, abs=4)


def cluster_and_pictures(path: Path) -> tuple[int, list[int]]:
    """Place of the first cluster in a Matroska file, and places of its pictures."""
    with av.open(str(path)) as container:
        pictures = [packet.pos for packet in container.demux(video=0) if packet.size and packet.pos is not None]
    return path.read_bytes().index(CLUSTER.to_bytes(4)), pictures


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
@pytest.mark.parametrize("kind", ["head of the first cluster", "one byte more, rest unreadable", "wrong time, cut off"])
def test_damaged_structure_of_matroska(tmp_path, texture, suffix, kind):
    """The structure cannot be followed past the damage, or times jump: the missing bytes tell what is lost."""
    codec = "libvpx" if suffix == ".webm" else "libx264"
    path = make(tmp_path / f"in{suffix}", texture(60), codec=codec, g="10")
    data, (cluster, pictures) = bytearray(path.read_bytes()), cluster_and_pictures(path)
    if kind == "head of the first cluster":
        data[cluster : pictures[20]] = np.random.default_rng(0).bytes(pictures[20] - cluster)
    elif kind == "one byte more, rest unreadable":
        data[pictures[30] :] = np.random.default_rng(0).bytes(len(data) - pictures[30] + 1)
    else:
        at = pictures[0] + 1  # behind the track's number: the time, 16 bits
        data[at : at + 2] = (512).to_bytes(2)
        del data[pictures[40] :]
    path.write_bytes(data)
    frames, lost = counts(path)
    assert 20 <= frames <= 50
    assert frames + lost == pytest.approx(60, abs=15), "an estimate"


@pytest.mark.parametrize("audio", [False, True])
@pytest.mark.parametrize("packets", [16, 23, 64])
def test_a_piece_cut_out_of_a_broadcast_is_lost(tmp_path, texture, audio, packets):
    """Also where the continuity counters happen to fit: those count to 16."""
    path = make(tmp_path / "in.ts", texture(60), audio=audio, g="10")
    data = path.read_bytes()
    begin = len(data) // 2 // 188 * 188
    path.write_bytes(data[:begin] + data[begin + 188 * packets :])
    frames, lost = counts(path)
    assert frames < 60
    assert frames + lost == pytest.approx(60, abs=2)


def test_a_file_that_ends_early_is_broken(tmp_path, texture):
    """Of a broadcast nobody knows how much is missing, only that its last packet is not complete."""
    path = make(tmp_path / "in.ts", texture(50), g="10")
    path.write_bytes(path.read_bytes()[: 188 * (path.stat().st_size // 188 // 2) + 100])
    video = VideoSource(path)
    assert len(list(video)) < 50
    assert video.lost + video.damaged > 0


def test_streams_that_appear_within_a_file(tmp_path, texture):
    """PyAV then fails at the end of the file, with an IndexError."""
    path = make(tmp_path / "in.ts", texture(20))
    container = av.open(str(path))

    class Grown:
        format, streams = container.format, container.streams

        def demux(self, streams: Any) -> Iterator[Any]:
            yield from container.demux(streams)
            raise IndexError("list index out of range")

    assert sum(packet.stream.type == "video" for packet in Packets(Grown())) == 20


@pytest.mark.parametrize("audio", [False, True])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("kind", ["long frames", "late start", "slides"])
def test_long_frames_and_late_starts_are_no_loss(tmp_path, texture, suffix, kind, audio):
    times = {
        "long frames": np.cumsum([40 + 900 * (t in (7, 20)) + 13 * (t % 3) for t in range(30)]),
        "late start": 40 * np.arange(30) + 2000,
        "slides": 3000 * np.arange(30),
    }[kind]
    path = make(tmp_path / f"in{suffix}", texture(30), [int(t) for t in times], audio=audio, bf="2")
    video = VideoSource(path)
    frames = list(video)
    assert (len(frames), video.lost, video.damaged) == (30, 0, 0)
    shown = np.array([float(frame.pts * video.time_base) for frame in frames])
    np.testing.assert_allclose(shown - shown[0], (times - times[0]) / 1000, atol=2e-3)
