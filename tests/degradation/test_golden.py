"""Hashes of what the deterministic steps make of a fixed clip: a change here changes every training sample.

The clip and the steps' values are chosen so that no value lies near a rounding border: float rounding, which differs
between machines, does not move a hash.
"""

import hashlib

import numpy as np
import pytest

from keep.degradation.blur import GaussianBlur
from keep.degradation.codec import PyAV, encoder_version
from keep.degradation.noise import GaussianNoise
from keep.degradation.pipeline import Pipeline, to_uint8
from keep.degradation.resize import Downsample, Upsample


def golden_clip() -> np.ndarray:
    t, y, x = np.mgrid[:3, :32, :48]
    channels = [7 * x + 3 * y + 11 * t, 5 * y + x * y // 4 + 60 * t, x * x // 3 + 2 * y * t]
    return (np.stack(channels, axis=-1) % 256).astype(np.uint8)


def short_hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


@pytest.mark.parametrize(
    ("step", "drawn", "every", "expected"),
    [
        (GaussianBlur(), {"sigma": 2.3}, 8, "faa44918c8f97374"),
        (GaussianBlur(), {"sigma": 2.3, "sigma_y": 1.1, "angle": 0.6}, 8, "105ddc4b22252ced"),
        (Downsample(), {"mode": "area"}, 1, "82a079d5ca9ee394"),
        (Downsample(), {"mode": "bilinear"}, 1, "ddd0ebb7dc221117"),
        (Downsample(), {"mode": "bicubic"}, 1, "159a3f6116647ab6"),
        (Upsample(), {"mode": "bicubic"}, 8, "a1407b20248c44e1"),
        (GaussianNoise(), {"sigma": 6.0, "seed": 7}, 8, "a03a6d35c3548e0f"),
        (GaussianNoise(), {"sigma": 6.0, "seed": 7, "grey": True}, 8, "c8cd10851d30c097"),
    ],
)
def test_a_step(step, drawn: dict, every: int, expected: str) -> None:
    out = step.apply(golden_clip().astype(np.float32), **drawn)[:, ::every, ::every]
    assert short_hash(to_uint8(out).tobytes()) == expected


def test_blur_and_downsampling_as_one_stage() -> None:
    drawn = [{"type": "GaussianBlur", "sigma": 2.3}, {"type": "Downsample", "mode": "bicubic"}]
    lq = Pipeline([GaussianBlur(), Downsample()]).replay(golden_clip(), drawn)
    assert short_hash(lq.tobytes()) == "b63ea8c7ae2e248b"


def test_the_codec() -> None:
    if encoder_version() != "x264 - core 165":
        pytest.skip(f"the hash is of x264 core 165; PyAV has {encoder_version()}")
    assert short_hash(PyAV().encode(golden_clip(), "libx264", 30, 25, "medium")) == "8c59a0cea1e650b3"
    assert short_hash(PyAV().compress(golden_clip(), "libx264", 30, 25, "medium").tobytes()) == "8fdf9b38e9b51250"
