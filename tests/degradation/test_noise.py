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


def test_grey_noise_is_the_same_in_all_channels_at_the_same_level() -> None:
    step = GaussianNoise((8, 8), grey=1.0)
    drawn = step.draw(np.random.default_rng(0))
    noise = step.apply(np.zeros((4, 64, 64, 3), np.float32), **drawn)
    assert noise.std() == pytest.approx(8, rel=0.02)
    assert np.array_equal(noise[..., 0], noise[..., 1])
    assert np.array_equal(noise[..., 0], noise[..., 2])


def test_grey_noise_comes_with_its_probability() -> None:
    rng, step = np.random.default_rng(0), GaussianNoise((0, 10), grey=0.5)
    drawn = [step.draw(rng) for _ in range(1000)]
    assert np.mean([d["grey"] for d in drawn]) == pytest.approx(0.5, abs=0.05)
    assert np.quantile([d["sigma"] for d in drawn], [0, 0.5, 1]) == pytest.approx([0, 5, 10], abs=0.4)
    assert "grey" not in GaussianNoise().draw(rng)


def test_the_field_is_the_noise_alone() -> None:
    clip = np.full((2, 8, 8, 3), 100, np.float32)
    step = GaussianNoise()
    assert np.array_equal(step.field((2, 8, 8, 3), 3.0, 5), step.apply(clip * 0, 3.0, 5))
