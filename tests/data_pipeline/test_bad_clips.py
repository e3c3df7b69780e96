"""Bad clips: named with the reason; they stop a run, or are skipped and counted where the options say so."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from keep.data.clips import FrameFolders, VideoClips
from keep.data.images import read_images
from keep.data.sampler import make_loader
from keep.data.video_io import check_video, read_video, write_video
from keep.utils.errors import UserError


def write_frames(folder: Path, frames: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for t, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"{t:05d}.png"), frame[..., ::-1])


@pytest.fixture
def videos(tmp_path: Path, texture: Callable, encode: Callable) -> Path:
    """Two sound videos, one cut off, one that is text, one too short."""
    for n, name in enumerate(("a", "b")):
        write_video(tmp_path / f"{name}.mkv", texture(8, seed=n), 25, codec="ffv1")
    data = encode(tmp_path / "cut.mp4", texture(30), crf="1").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.mp4").write_text("no video")
    write_video(tmp_path / "short.mkv", texture(2), 25, codec="ffv1")
    return tmp_path


@pytest.fixture
def folders(tmp_path: Path, texture: Callable) -> Path:
    """Five folders of frames: an image of c1 is none, one of c3 has another size."""
    for n in range(5):
        write_frames(tmp_path / f"c{n}", texture(6, seed=n))
    (tmp_path / "c1" / "00002.png").write_text("no image")
    cv2.imwrite(str(tmp_path / "c3" / "00003.png"), texture(1, 21, 33)[0])
    return tmp_path


def test_a_bad_clip_stops_the_run_by_default(videos: Path) -> None:
    with pytest.raises(UserError, match=r"cut\.mp4: .*truncated"):
        VideoClips(str(videos), clip_length=4)


def test_clips_that_are_bad_from_the_start_are_skipped_and_reported(videos: Path) -> None:
    dataset = VideoClips(str(videos), clip_length=4, size=16, on_bad="skip")
    assert [clip.name for clip in dataset.clips] == ["a", "b"]
    assert [reason.split(": ", 1)[0].rpartition("/")[2] for reason in dataset.bad[:2]] == ["cut.mp4", "text.mp4"]
    assert dataset.bad[2].endswith("clip short: too short: 2 frames of 4")
    assert dataset[0, 0]["skipped"] == ""
    assert "skipped" not in VideoClips(str(videos / "a.mkv"), clip_length=4, size=16)[0, 0]


def test_a_clip_that_turns_out_bad_is_replaced_by_the_next_of_the_epoch(folders: Path) -> None:
    dataset = FrameFolders(str(folders), clip_length=6, size=16, on_bad="skip")
    epoch = [dataset[1, i] for i in range(5)]
    order = [dataset.clips[dataset._clip_number(1, i)].name for i in range(5)]
    assert sorted(order) == [f"c{n}" for n in range(5)]
    for i, item in enumerate(epoch):
        names = [*order[i:], *order[:i]]
        good = next(n for n, name in enumerate(names) if name not in ("c1", "c3"))
        assert item["name"] == names[good]
        lines = item["skipped"].splitlines()
        assert [line.split("/")[-2] for line in lines] == names[:good]
        assert all("not an image" in line or "of the same clip is 64x48" in line for line in lines)


def test_the_skipped_lines_arrive_in_the_batch(folders: Path) -> None:
    dataset = FrameFolders(str(folders), clip_length=6, size=16, on_bad="skip")
    for workers in (0, 1):
        batches = list(make_loader(dataset, 1, 5, stop=2, workers=workers))
        lines = [line for batch in batches for text in batch["skipped"] for line in text.splitlines()]
        assert len(lines) >= 4
        assert {line.split("/")[-2] for line in lines} == {"c1", "c3"}


def test_only_bad_clips_end_with_the_reason(tmp_path: Path, texture: Callable) -> None:
    for name in ("a", "b"):
        write_frames(tmp_path / "frames" / name, texture(3))
        (tmp_path / "frames" / name / "00001.png").write_text("no image")
    dataset = FrameFolders(str(tmp_path / "frames"), clip_length=3, size=16, on_bad="skip")
    with pytest.raises(UserError, match=r"2 clips in a row are bad; the first: .*00001\.png: not an image"):
        dataset[0, 0]
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_text("no video")
    with pytest.raises(UserError, match=r"all 1 clips are bad; the first: .*a\.mp4: not a video"):
        VideoClips(str(tmp_path / "videos"), clip_length=1, on_bad="skip")


def test_a_test_leaves_out_nothing(videos: Path) -> None:
    with pytest.raises(UserError, match="on_bad: skip needs a clip_length"):
        VideoClips(str(videos), on_bad="skip")


def test_a_kept_damaged_clip_fails_when_it_is_read(videos: Path) -> None:
    dataset = VideoClips(str(videos), size=16, on_bad="keep")
    assert [clip.name for clip in dataset.clips] == ["a", "b", "cut", "short", "text"]
    assert dataset[0, 0].keys() == {"gt", "name", "degradation"}
    for number, name in ((2, "cut"), (4, "text")):
        with pytest.raises(UserError, match=rf"{name}\.mp4: "):
            dataset[0, number]
    with pytest.raises(UserError, match="on_bad: keep is for whole clips"):
        VideoClips(str(videos), clip_length=4, on_bad="keep")


def test_a_video_whose_frame_size_varies_is_named(tmp_path: Path, texture: Callable, encode: Callable) -> None:
    parts = [encode(tmp_path / f"{n}.ts", texture(5, 48 + 16 * n, 64), g="5").read_bytes() for n in range(2)]
    path = tmp_path / "varies.ts"
    path.write_bytes(b"".join(parts))
    with pytest.raises(
        UserError, match=r"varies\.ts: the frame size varies: frame \d+ is 64x64, those before it 64x48"
    ):
        read_video(path)
    with pytest.raises(UserError, match="the frame size varies"):
        check_video(path)


def test_a_video_whose_decoder_is_missing_is_named(tmp_path: Path, texture: Callable) -> None:
    write_video(tmp_path / "a.mkv", texture(3), 25, codec="ffv1")
    (tmp_path / "b.mkv").write_bytes((tmp_path / "a.mkv").read_bytes().replace(b"V_FFV1", b"V_FFVX"))
    with pytest.raises(UserError, match=r"b\.mkv: the FFmpeg that PyAV uses has no decoder"):
        read_video(tmp_path / "b.mkv")
    dataset = VideoClips(str(tmp_path), clip_length=2, on_bad="skip")
    assert ["no decoder" in line for line in dataset.bad] == [True]


def test_frames_of_an_odd_size_are_resized(tmp_path: Path, texture: Callable) -> None:
    write_frames(tmp_path / "c" / "odd", texture(3, 47, 63))
    assert FrameFolders(str(tmp_path / "c"), clip_length=3, size=32)[0, 0]["gt"].shape == (3, 3, 32, 32)


def test_check_video_decodes_everything(tmp_path: Path, texture: Callable, encode: Callable) -> None:
    path = encode(tmp_path / "a.mp4", texture(20), crf="5")
    assert check_video(path).frames == 20
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + len(data) // 5] = bytes(len(data) // 5)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.mp4: truncated or damaged"):
        check_video(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
def test_a_truncated_image_is_named(tmp_path: Path, texture: Callable, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(path), texture(1)[0])
    assert read_images([path]).shape == (1, 48, 64, 3)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=rf"a\.{suffix}: not an image, or a damaged one"):
        read_images([path])
    with pytest.raises(UserError, match="gone: cannot be read"):
        read_images([tmp_path / "gone"])


@pytest.mark.parametrize("kept", [6000, -3000])
def test_a_damaged_image_is_reported_only_by_us(kept: int, tmp_path: Path, capfd) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = tmp_path / "a.png"
    path.write_bytes(cv2.imencode(".png", noise)[1].tobytes()[:kept])
    level = cv2.utils.logging.getLogLevel()
    with pytest.raises(UserError, match=r"a\.png: not an image, or a damaged one"):
        read_images([path])
    assert capfd.readouterr().err == ""
    assert cv2.utils.logging.getLogLevel() == level
