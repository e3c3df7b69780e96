"""torchcodec is used for a kind of video only where its frames equal PyAV's; the rest is read by PyAV."""

import logging
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from keep.data import readers
from keep.data.clips import VideoClips
from keep.data.decode import VideoFile, decode
from keep.data.packed import PackedClips, pack_clips
from keep.data.reader_clips import Kind, check_clip, kind_of_frame
from keep.data.video_io import read_video, write_video
from keep.utils.errors import UserError
from tests.videos import make

KINDS = {
    "8-bit": Kind("yuv420p", 0, 2),
    "8-bit, BT.709": Kind("yuv420p", 1, 1),
    "full range": Kind("yuvj420p", 2, 6),
    "10-bit": Kind("yuv420p10le", 0, 2),
    "4:4:4": Kind("yuv444p", 1, 6),
    "RGB": Kind("bgr0", 0, 0),
}


class Stub:
    """The interface of ``torchcodec.decoders.VideoDecoder``, on PyAV; ``wrong`` formats are one grey level off."""

    wrong: tuple[str, ...] = ()
    late = 0.0
    dropped = 0
    broken = ""
    reads = 0

    def __init__(self, source: str | bytes, *, stream_index: int | None = None, **options: Any) -> None:
        assert options == {"dimension_order": "NHWC", "num_ffmpeg_threads": 1, "device": "cpu"}
        if self.broken:
            raise RuntimeError(self.broken)
        file = VideoFile("check", source) if isinstance(source, bytes) else VideoFile(source)
        self.frames = list(decode(file))
        self.frames = self.frames[: len(self.frames) - self.dropped]

    def __len__(self) -> int:
        return len(self.frames)

    def get_frames_in_range(self, start: int, stop: int, step: int = 1) -> types.SimpleNamespace:
        type(self).reads += 1
        frames = self.frames[start:stop:step]
        off = frames[0].format.name in self.wrong
        data = np.stack([f.to_ndarray(format="rgb24", threads=1) ^ off for f in frames])
        times = torch.tensor([float(f.time) + self.late for f in frames], dtype=torch.float64)
        return types.SimpleNamespace(data=torch.from_numpy(data), pts_seconds=times)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    readers.difference.cache_clear()
    monkeypatch.setattr(readers, "_known", {})


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> type[Stub]:
    own = type("OwnStub", (Stub,), {})
    module: Any = types.ModuleType("torchcodec.decoders")
    module.VideoDecoder = own
    monkeypatch.setitem(sys.modules, "torchcodec", types.ModuleType("torchcodec"))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", module)
    return own


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("keep"), "propagate", True)
    caplog.set_level(logging.INFO, "keep")
    return caplog


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_a_check_clip_is_of_its_kind(kind: Kind) -> None:
    content = check_clip(kind, 66, 50)
    assert content is not None
    assert {kind_of_frame(f) for f in decode(VideoFile("check", content))} == {kind}
    assert read_video("check", content=content).shape == (7, 50, 66, 3)


def test_right_pixels_are_used(stub, tmp_path: Path, texture, warnings) -> None:
    path = make(tmp_path / "a.mp4", texture(12), g="4")
    dataset = VideoClips(str(path), size=48, reader="torchcodec")
    stub.reads = 0
    for start, count, step in ((0, 12, 1), (3, 4, 2), (11, 1, 1)):
        frames = dataset.read(dataset.clips[0], start, count, step)
        assert np.array_equal(frames, read_video(path, start, count, step))
    assert stub.reads >= 3  # the clips, and the check
    assert not warnings.records


def test_wrong_pixels_switch_a_kind_off(stub, tmp_path: Path, texture, warnings) -> None:
    stub.wrong = ("yuv420p10le",)
    for name, pix_fmt in (("a", "yuv420p10le"), ("b", "yuv420p10le"), ("c", "yuv444p")):
        make(tmp_path / f"{name}.mp4", texture(6), pix_fmt=pix_fmt)
    dataset = VideoClips(str(tmp_path), size=48, reader="torchcodec")
    for clip in dataset.clips:
        assert np.array_equal(dataset.read(clip, 1, 4, 1), read_video(tmp_path / f"{clip.name}.mp4", 1, 4))
    assert [r.message for r in warnings.records] == [
        "warning: torchcodec: yuv420p10le, limited range, matrix 2: pixels differ from PyAV's by up to 1 of 255; "
        "PyAV reads these videos"
    ]
    stub.reads = 0
    dataset.read(dataset.clips[0], 0, 2, 1)
    assert stub.reads == 0
    dataset.read(dataset.clips[2], 0, 2, 1)
    assert stub.reads == 1


@pytest.mark.parametrize(("fault", "text"), [({"late": 0.001}, "other time stamps"), ({"dropped": 1}, "6 frames, 7")])
def test_wrong_times_and_counts_switch_a_kind_off(stub, fault: dict[str, Any], text: str) -> None:
    for name, value in fault.items():
        setattr(stub, name, value)
    assert text in readers.difference(KINDS["8-bit"])


def test_a_kind_that_cannot_be_checked_is_not_used(stub) -> None:
    assert "no clip of this kind" in readers.difference(Kind("no such format", 0, 2))


def test_a_file_with_other_frames_is_read_by_pyav(stub, tmp_path: Path, texture) -> None:
    path = make(tmp_path / "a.mp4", texture(6))
    dataset = VideoClips(str(path), size=48, reader="torchcodec")
    assert readers.difference(KINDS["8-bit"]) == ""
    stub.dropped = 1
    assert np.array_equal(dataset.read(dataset.clips[0], 0, 4, 1), read_video(path, 0, 4))
    stub.dropped, stub.late = 0, 0.04
    readers._known.clear()
    assert np.array_equal(dataset.read(dataset.clips[0], 0, 4, 1), read_video(path, 0, 4))


def test_pyav_reads_what_torchcodec_fails_on(stub, tmp_path: Path, texture) -> None:
    path = make(tmp_path / "a.mp4", texture(6))
    dataset = VideoClips(str(path), size=48, reader="torchcodec")
    assert readers.difference(KINDS["8-bit"]) == ""
    stub.broken = "damaged"
    assert np.array_equal(dataset.read(dataset.clips[0], 0, 4, 1), read_video(path, 0, 4))
    with pytest.raises(UserError, match="it has 6 frames"):
        dataset.read(dataset.clips[0], 4, 4, 1)


def test_a_rotated_video_is_read_by_pyav(stub, tmp_path: Path, texture) -> None:
    path = make(tmp_path / "a.mp4", texture(6), rotation=90)
    dataset = VideoClips(str(path), size=48, reader="torchcodec")
    stub.reads = 0
    assert np.array_equal(dataset.read(dataset.clips[0], 0, 4, 1), read_video(path, 0, 4))
    assert stub.reads == 0


def test_a_file_written_again_is_looked_at_again(stub, tmp_path: Path, texture) -> None:
    stub.wrong = ("yuv420p10le",)
    path = tmp_path / "a.mp4"
    for pix_fmt in ("yuv420p", "yuv420p10le"):
        make(path, texture(6), pix_fmt=pix_fmt)
        dataset = VideoClips(str(path), size=48, reader="torchcodec")
        assert np.array_equal(dataset.read(dataset.clips[0], 0, 4, 1), read_video(path, 0, 4))


def test_packed_clips(stub, tmp_path: Path, texture) -> None:
    (tmp_path / "videos").mkdir()
    path = make(tmp_path / "videos/a.mp4", texture(6))
    pack_clips(VideoClips(str(path.parent), size=48), tmp_path / "a.zip")
    dataset = PackedClips(str(tmp_path / "a.zip"), size=48, reader="auto")
    stub.reads = 0
    assert np.array_equal(dataset.read(dataset.clips[0], 1, 3, 1), read_video(path, 1, 3))
    assert stub.reads


def test_a_missing_package(monkeypatch, tmp_path: Path, texture, warnings) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    path = make(tmp_path / "a.mp4", texture(6))
    with pytest.raises(UserError, match=r"reader: torchcodec needs the package torchcodec: .*keep-vfsr\[torchcodec\]"):
        VideoClips(str(path), size=48, reader="torchcodec")
    dataset = VideoClips(str(path), size=48, reader="auto")
    assert np.array_equal(dataset.read(dataset.clips[0], 0, 4, 1), read_video(path, 0, 4))
    assert "pyav, as torchcodec needs the package" in warnings.text


def test_a_package_without_ffmpeg(stub, tmp_path: Path, texture, warnings) -> None:
    stub.broken = "Could not load libtorchcodec. Likely causes:\nthe rest"
    path = make(tmp_path / "a.mp4", texture(6))
    with pytest.raises(UserError, match="cannot decode here: Could not load libtorchcodec; it needs the shared lib"):
        VideoClips(str(path), size=48, reader="torchcodec")
    dataset = VideoClips(str(path), size=48, reader="auto")
    assert np.array_equal(dataset.read(dataset.clips[0], 0, 4, 1), read_video(path, 0, 4))


def test_pyav_alone_asks_for_nothing(monkeypatch, tmp_path: Path, texture) -> None:
    monkeypatch.setattr(readers, "_torchcodec", lambda: pytest.fail("torchcodec was asked for"))
    path = make(tmp_path / "a.mp4", texture(6))
    dataset = VideoClips(str(path), size=48)
    assert dataset.read(dataset.clips[0], 0, 4, 1).shape[0] == 4


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p", "yuv420p10le", "yuv444p", "bgr0"])
def test_the_package_reads_as_pyav(pix_fmt: str, tmp_path: Path, texture) -> None:
    pytest.importorskip("torchcodec", reason="torchcodec is not installed")
    path = tmp_path / "a.mkv"
    write_video(path, texture(12), 25, "ffv1" if pix_fmt == "bgr0" else "libx264", pix_fmt=pix_fmt)
    try:
        dataset = VideoClips(str(path), size=48, reader="torchcodec")
    except UserError as error:
        pytest.skip(str(error))
    for start, count, step in ((0, 12, 1), (3, 4, 2), (11, 1, 1)):
        frames = dataset.read(dataset.clips[0], start, count, step)
        assert np.array_equal(frames, read_video(path, start, count, step))
