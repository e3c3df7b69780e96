"""Loss inside a file is measured against its time stamps; long frames and late starts are no loss."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest
from videos import make

from keep.data.mux import VideoSource
from keep.data.mux.loss import Loss, ends_in_a_packet
from keep.data.mux.matroska import CLUSTER, read_clusters
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


def test_pictures_at_the_end_of_matroska_that_are_shown_earlier(tmp_path, texture):
    """With B-frames, the last packets are not the last pictures: they are a gap in time, beside a hole in the file."""
    options: Any = {"g": "40", "bf": "2", "x264-params": "b-adapt=0"}
    path = make(tmp_path / "in.mkv", texture(40), **options)
    _, pictures = cluster_and_pictures(path)
    data = bytearray(path.read_bytes())
    begin, end = pictures[-2] - 7, read_clusters(path).end  # the last two
    data[begin:end] = bytes(end - begin)
    path.write_bytes(data)
    assert counts(path) == (38, 2)


def test_a_piece_cut_out_of_one_cluster(tmp_path, texture):
    """No bytes are left over between the packets, but the file is shorter than its elements say."""
    path = make(tmp_path / "in.mkv", texture(60), g="10", bf="0")
    _, pictures = cluster_and_pictures(path)
    data = path.read_bytes()
    path.write_bytes(data[: pictures[33] - 7] + data[pictures[36] - 7 :])
    assert counts(path) == (57, 3)


def test_a_header_that_promises_too_much(tmp_path, texture):
    """More pictures than the file has bytes: the header is damaged, not the pictures."""
    path = make(tmp_path / "in.avi", texture(20), codec="mpeg4")
    data = bytearray(path.read_bytes())
    at = data.index(b"strh") + 8 + 32  # the stream's length
    data[at + 3] = 0x80
    path.write_bytes(data)
    assert counts(path) == (20, 0)


def test_an_element_of_absurd_length(tmp_path, texture):
    path = make(tmp_path / "in.mkv", texture(20))
    data = bytearray(path.read_bytes())
    cluster = data.index(CLUSTER.to_bytes(4)) + 4
    data[cluster : cluster + 8] = b"\x01" + 7 * b"\xfe"
    path.write_bytes(data)
    clusters = read_clusters(path)
    assert clusters.cut_short
    data[4] = 0x01  # the header's length
    data[5:12] = 7 * b"\xfe"
    path.write_bytes(data)
    assert read_clusters(path).begin is None


@pytest.mark.parametrize("packet", [188, 192, 204])
def test_whether_a_broadcast_ends_within_a_packet(tmp_path, packet):
    """A size that another packet length divides says nothing."""
    path = tmp_path / "in.ts"
    one = {188: b"\x47" + bytes(187), 192: bytes(4) + b"\x47" + bytes(187), 204: b"\x47" + bytes(203)}[packet]
    whole = one * (17 * 48)
    for other in (188, 192, 204):
        path.write_bytes(whole[: len(whole) // other * other])
        assert ends_in_a_packet(path) == (other != packet and len(whole) % other != 0)
    path.write_bytes(whole[: packet * 50] + bytes(33) + whole[packet * 50 :])
    assert not ends_in_a_packet(path), "something was inserted"


def test_pictures_with_times_of_nonsense_are_lost(tmp_path):
    """A damaged table of times: FFmpeg then drops pictures as if an edit list cut them away."""
    path = tmp_path / "in.mov"
    path.write_bytes(b"")
    container: Any = SimpleNamespace(format=SimpleNamespace(name="mov,mp4"))
    stream: Any = SimpleNamespace(index=0)

    def seen(times: list[float], dropped: range) -> Loss:
        loss = Loss(container, stream, 0.04, path)
        for i, time in enumerate(times):
            loss.see(
                SimpleNamespace(
                    pts=round(1000 * time), dts=None, time_base=Fraction(1, 1000), stream=SimpleNamespace(type="video"),
                    stream_index=0, is_keyframe=i == 0, is_discard=i in dropped, is_corrupt=False, pos=i, size=1,
                )
            )  # fmt: skip
        return loss

    head = seen([0.04 * i - 0.4 for i in range(40)], range(10))
    assert (head.discarded, head.broken) == (10, False), "cut away by an edit list"
    nonsense = seen([0.04 * i - 74710 * (i > 25) for i in range(40)], range(26, 40))
    assert (nonsense.discarded, nonsense.broken) == (0, True)


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


@pytest.mark.parametrize("packets", [8, 18, 48])
def test_a_piece_that_stands_twice_in_a_broadcast_is_no_loss(tmp_path, texture, packets):
    """The decoder drops pictures that it has given already. One may be damaged where the piece begins again."""
    picture = cv2.GaussianBlur(texture(1)[0], (0, 0), 2)
    path = make(tmp_path / "in.ts", np.stack([np.roll(picture, t, 1) for t in range(60)]), g="30", bf="0")
    data = path.read_bytes()
    begin = 188 * int(0.6 * (len(data) // 188))
    end = begin + 188 * packets
    path.write_bytes(data[:end] + data[begin:])
    frames, lost = counts(path)
    assert frames >= 60
    assert lost <= 1


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
