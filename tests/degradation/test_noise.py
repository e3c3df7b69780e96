import numpy as np
import pytest

from keep.degradation.noise import GaussianNoise


def test_the_level_is_of_255_and_independent_over_frames_and_channels() -> None:
    step = GaussianNoise((8, 8))
    drawn = step.draw(np.random.default_rng(0))
    noise = step.apply(np.full((4, 64, 64, 3), 128, np.float32), **drawn) - 128  # pyright: ignore
    assert noise.dtype == np.float32
    assert noise.std() == pytest.approx(8, rel=0.02)
    assert noise.mean() == pytest.approx(0, abs=0.15)
    flat = np.concatenate([noise[t, ..., c].reshape(1, -1) for t in range(4) for c in range(3)])
    assert np.abs(np.corrcoef(flat) - np.eye(12)).max() < 0.06


def test_a_draw_can_be_replayed() -> None:
    step, clip = GaussianNoise(), np.zeros((2, 8, 8, 3), np.float32)
    rng = np.random.default_rng(3)
    first, second = step.draw(rng), step.draw(rng)
    assert np.array_equal(step.apply(clip, **first), step.apply(clip, **first))  # pyright: ignore
    assert not np.array_equal(step.apply(clip, **first), step.apply(clip, **second))  # pyright: ignore


def test_zero_is_no_noise() -> None:
    clip = np.full((1, 4, 4, 3), 7, np.float32)
    assert np.array_equal(GaussianNoise((0, 0)).apply(clip, 0.0, 1), clip)
