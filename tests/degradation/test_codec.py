import numpy as np
import pytest

from keep.degradation import codec as codec_module
from keep.degradation.codec import PyAV, VideoCodec, require_encoder
from keep.errors import UserError
from keep.registry import DEGRADATIONS


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / ((a.astype(np.float64) - b) ** 2).mean()))


def test_red_stays_red() -> None:
    clip = np.zeros((3, 32, 32, 3), np.float32)
    clip[..., 0], clip[..., 1], clip[..., 2] = 200, 40, 20
    out = VideoCodec().apply(clip, "libx264", 25, 25, "medium")
    assert out.dtype == np.float32
    np.testing.assert_allclose(out.mean((0, 1, 2)), [200, 40, 20], atol=5)


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
    assert {(d["fps"], d["preset"]) for d in drawn} == {(25, "medium")}


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
