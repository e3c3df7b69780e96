"""σ that is given for one size of frames and scaled to another, and σ that was not."""

import logging
from pathlib import Path

import numpy as np
import pytest

import keep.degradation  # noqa: F401  (registers the steps)
from keep.config.registry import DATASETS
from keep.degradation.blur import GaussianBlur
from keep.degradation.noise import GaussianNoise
from keep.degradation.pipeline import Pipeline
from keep.degradation.resize import Downsample


def sigmas(pipeline: Pipeline) -> list[tuple[float, float]]:
    return [step.sigma for step in pipeline.steps if hasattr(step, "sigma")]


@pytest.mark.parametrize("size", [96, 128, 256, 512, 1024])
def test_sigma_is_scaled_to_the_size_of_the_clips(size: int) -> None:
    steps = GaussianBlur((2, 10), sigma_at=512), Downsample(), GaussianNoise((0, 10), sigma_at=512)
    assert sigmas(Pipeline(steps, size)) == [(2 * size / 512, 10 * size / 512), (0.0, 10 * size / 512)]
    assert sigmas(Pipeline(steps)) == [(2, 10), (0, 10)]  # the steps themselves do not change


def test_without_sigma_at_nothing_is_scaled() -> None:
    assert sigmas(Pipeline([GaussianBlur((0.5, 1)), GaussianNoise((0, 10))], 96)) == [(0.5, 1), (0, 10)]


def test_a_dataset_scales_to_its_own_size_and_records_what_was_applied(clips: Path) -> None:
    def drawn(**options) -> str:
        blur = GaussianBlur(**options)
        return DATASETS["VideoClips"](str(clips), size=32, degradation=(blur,))[0, 0]["degradation"]

    assert drawn(sigma=(4, 8), sigma_at=128) == drawn(sigma=(1, 2))  # to the digit


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("keep"), "propagate", True)
    return caplog


@pytest.mark.parametrize(
    ("options", "size", "warned"),
    [
        ({"sigma": (2, 5)}, 96, True),  # table A1's mild, in pixels of 512×512 frames
        ({"sigma": (5, 10)}, 256, True),
        ({"sigma": (2, 5), "sigma_at": 512}, 96, False),
        ({"sigma": (0.375, 1.875)}, 96, False),  # the paper's training range, scaled by hand
        ({"sigma": (5, 20)}, 512, False),
    ],
)
def test_a_blur_for_larger_frames_is_reported(options: dict, size: int, warned: bool, warnings) -> None:
    Pipeline([GaussianBlur(**options)], size)
    message = f"GaussianBlur: sigma up to {options['sigma'][1]} on clips of {size}×{size} is"
    assert (message in warnings.text) == warned
    assert ("add sigma_at: 512" in warnings.text) == warned


def test_noise_scales_with_the_average_over_pixels() -> None:
    """Noise of δ averaged over blocks of 4×4 pixels is noise of δ/4: what ``sigma_at`` of GaussianNoise stands for."""
    clip = np.full((1, 512, 512, 3), 128, np.float32)
    noise = GaussianNoise((8, 8), sigma_at=512)
    full = noise.apply(clip, 8.0, seed=1)
    averaged = full.reshape(1, 128, 4, 128, 4, 3).mean((2, 4))
    small = noise.at(128).apply(clip[:, :128, :128], 2.0, seed=2)
    assert noise.at(128).sigma == (2, 2)
    assert averaged.std() == pytest.approx(small.std(), rel=0.02)
