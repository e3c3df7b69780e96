import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from keep.config.registry import DEGRADATIONS
from keep.data.video_io import probe, read_video
from keep.degradation import codec as codec_module
from keep.degradation.codec import FFmpeg, PyAV, VideoCodec, encoder_version, require_encoder
from keep.utils.errors import UserError

needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None or importlib.util.find_spec("ffmpeg") is None,
    reason="needs the FFmpeg program and ffmpeg-python",
)
BACKENDS = ["PyAV", pytest.param("FFmpeg", marks=needs_ffmpeg)]
MEDIUM = ("libx264", 35, 25, "medium")


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / ((a.astype(np.float64) - b) ** 2).mean()))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p"])
def test_red_stays_red(backend: str, pix_fmt: str) -> None:
    clip = np.zeros((3, 32, 32, 3), np.float32)
    clip[..., 0], clip[..., 1], clip[..., 2] = 200, 40, 20
    out = VideoCodec(backend=backend).apply(clip, "libx264", 25, 25, "medium", pix_fmt)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out.mean((0, 1, 2)), [200, 40, 20], atol=5)
    pure = np.zeros((2, 32, 32, 3), np.float32)
    pure[..., 0] = 255
    out = VideoCodec(backend=backend).apply(pure, "libx264", 25, 25, "medium", pix_fmt).mean((0, 1, 2))
    assert out[0] > 240
    assert out[1:].max() < 15


def test_a_higher_crf_is_worse(texture: np.ndarray) -> None:
    step = VideoCodec()
    scores = [
        psnr(step.apply(texture.astype(np.float32), "libx264", crf, 25, "medium"), texture) for crf in (0, 25, 45)
    ]
    assert scores[0] > scores[1] + 2
    assert scores[1] > scores[2] + 2


def test_frame_rate_changes_what_a_crf_means(texture: np.ndarray) -> None:
    step, clip = VideoCodec(), texture.astype(np.float32)
    slow, fast = (psnr(step.apply(clip, "libx264", 35, fps, "medium"), texture) for fps in (1, 25))
    assert slow > fast


def test_the_same_parameters_give_the_same_bytes_and_h264_is_libx264(texture: np.ndarray) -> None:
    outs = [PyAV().compress(texture, name, 35, 25, "medium") for name in ("libx264", "libx264", "h264")]
    assert np.array_equal(outs[0], outs[1])
    assert np.array_equal(outs[0], outs[2])


@pytest.mark.parametrize("side", [20, 36, 64])
def test_what_lies_in_memory_does_not_change_the_bytes(side: int, texture: np.ndarray) -> None:
    clip = np.concatenate([texture, texture[::-1]])[:, :side, :side]
    rng, made = np.random.default_rng(0), set()
    for n in range(30):
        used = [np.full(size, 37 * n % 256, np.uint8) for size in rng.integers(100, 200_000, 30)]
        del used  # what the encoder allocates lies where these bytes were
        made.add(PyAV().encode(clip, *MEDIUM))
    assert len(made) == 1


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 16, 16), (2, 17, 16), (3, 16, 19), (7, 31, 33)])
def test_any_length_and_odd_sizes_come_back_whole(texture: np.ndarray, frames: int, height: int, width: int) -> None:
    clip = np.concatenate([texture, texture])[:frames, :height, :width]
    out = PyAV().compress(clip, "libx264", 10, 25, "medium")
    assert out.shape == clip.shape
    assert psnr(out[:, -2:, -2:], clip[:, -2:, -2:]) > 20


def test_crf_reaches_both_ends_and_no_further() -> None:
    rng = np.random.default_rng(0)
    drawn = [VideoCodec(crf=(25, 45)).draw(rng) for _ in range(600)]
    assert {d["crf"] for d in drawn} == set(range(25, 46))
    assert {d["codec"] for d in drawn} == {"libx264", "h264"}
    assert {(d["fps"], d["preset"], d["pix_fmt"]) for d in drawn} == {(25, "medium", "yuv420p")}


def test_codecs_come_with_their_probabilities() -> None:
    rng, step = np.random.default_rng(0), VideoCodec(("libx264", "h264"), probabilities=(0.8, 0.2))
    assert np.mean([step.draw(rng)["codec"] == "h264" for _ in range(1000)]) == pytest.approx(0.2, abs=0.04)


def test_an_unknown_codec_is_named_with_those_known() -> None:
    with pytest.raises(UserError, match="no video codec 'vp99' to degrade with; known: h264, libx264"):
        VideoCodec(("libx264", "vp99"))


def test_an_encoder_that_ffmpeg_lacks_is_named_with_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no video encoder 'libnothing'; it has .*ffv1"):
        require_encoder("libnothing")
    monkeypatch.setattr(codec_module, "has_encoder", lambda name: name == "mpeg4")
    with pytest.raises(UserError, match="no video encoder 'libx264'; it has mpeg4"):
        VideoCodec(("h264",))


def test_bad_options_are_errors() -> None:
    with pytest.raises(UserError, match="crf must be"):
        VideoCodec(crf=(45, 25))
    with pytest.raises(UserError, match="codecs is empty"):
        VideoCodec(())
    with pytest.raises(ValueError, match="less than or equal to 51"):
        DEGRADATIONS.spec({"type": "VideoCodec", "crf": [25, 60]})


def test_it_builds_from_options_with_its_backend() -> None:
    step = DEGRADATIONS.spec({"type": "VideoCodec", "backend": "PyAV", "crf": [18, 18]}).build()
    assert isinstance(step.backend, PyAV)
    assert step.crf == (18, 18)
    assert isinstance(DEGRADATIONS.spec("VideoCodec").build().backend, PyAV)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_file_decodes_to_what_compress_gives(backend: str, texture: np.ndarray, tmp_path: Path) -> None:
    own = PyAV() if backend == "PyAV" else FFmpeg()
    data = own.encode(texture, *MEDIUM)
    assert data == own.encode(texture, *MEDIUM)
    expected = own.compress(texture, *MEDIUM)
    assert np.array_equal(own.decode(data), expected)
    (tmp_path / "a.mp4").write_bytes(data)
    assert probe(tmp_path / "a.mp4").fps == 25
    assert np.abs(read_video(tmp_path / "a.mp4").astype(int) - expected).mean() < (1e-9 if backend == "PyAV" else 2)


@needs_ffmpeg
@pytest.mark.parametrize("crf", [18, 35])
def test_the_program_compresses_as_much_as_the_library(texture: np.ndarray, crf: int) -> None:
    # Another x264 and another filter for the chroma: the same quality, not the same bytes.
    a, b = (psnr(own.compress(texture, "libx264", crf, 25, "medium"), texture) for own in (PyAV(), FFmpeg()))
    assert a == pytest.approx(b, abs=1)


@needs_ffmpeg
def test_the_program_takes_odd_sizes_and_tells_its_errors(texture: np.ndarray) -> None:
    assert FFmpeg().compress(texture[:3, :31, :33], *MEDIUM).shape == (3, 31, 33, 3)
    with pytest.raises(UserError, match="'ffmpeg' failed: "):
        FFmpeg().encode(texture, "libx264", 35, 25, "no such preset")
    assert FFmpeg().version().startswith("x264 - core ")


def test_a_program_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_module, "_ffmpeg", lambda: None)
    with pytest.raises(UserError, match="cannot run 'no-ffmpeg-here'"):
        VideoCodec(backend=FFmpeg("no-ffmpeg-here"))


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ffmpeg", None)
    with pytest.raises(UserError, match=r"needs ffmpeg-python: pip install keep-vfsr\[ffmpeg\]"):
        VideoCodec(backend="FFmpeg")


def test_the_encoder_tells_its_version() -> None:
    assert encoder_version().startswith("x264 - core 1")


def test_more_chroma_is_nearer_to_the_input() -> None:
    x = np.mgrid[:32, :32][1]
    stripes = np.where((x % 2)[None, ..., None] == 0, [250, 10, 10], [10, 10, 250]).astype(np.uint8)
    clip = np.repeat(stripes, 2, axis=0)
    full, half = (psnr(PyAV().compress(clip, "libx264", 10, 25, "medium", p), clip) for p in ("yuv444p", "yuv420p"))
    assert full > half + 5
