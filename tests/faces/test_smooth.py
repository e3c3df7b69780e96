import numpy as np
import pytest

from keep.faces.smooth import fill_gaps, smooth

NAN = np.nan


def test_gaps_up_to_the_limit_are_straight_lines():
    x = np.array([NAN, 0, NAN, NAN, 3, NAN, NAN, NAN, 7, NAN])[:, None]
    np.testing.assert_array_equal(fill_gaps(x, 2)[:, 0], [NAN, 0, 1, 2, 3, NAN, NAN, NAN, 7, NAN])
    np.testing.assert_array_equal(fill_gaps(x, 3)[:, 0], [NAN, 0, 1, 2, 3, 4, 5, 6, 7, NAN])
    assert np.isnan(x[2, 0]), "the input is left alone"


def test_a_row_with_one_nan_is_a_gap():
    points = np.arange(20.0).reshape(2, 5, 2).repeat(2, 0)[[0, 1, 3]]
    points[1, 2, 0] = NAN
    filled = fill_gaps(points, 1)
    np.testing.assert_allclose(filled[1], (points[0] + points[2]) / 2)


def test_equation_10_by_hand():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5, 2))
    out = smooth(x, sigma=5, radius=20)
    for t in (0, 7, 30, 59):
        near = np.arange(max(0, t - 20), min(60, t + 21))
        weight = np.exp(-((near - t) ** 2) / (2 * 25))
        np.testing.assert_allclose(out[t], np.einsum("t,tij->ij", weight / weight.sum(), x[near]), atol=1e-12)


def test_a_face_at_rest_stays_and_jitter_goes():
    rng = np.random.default_rng(1)
    still = np.full((80, 5, 2), 37.5, np.float32)
    np.testing.assert_allclose(smooth(still), still)
    assert smooth(still).dtype == np.float32
    noise = rng.normal(0, 1, (400, 5, 2))
    # The mean square of a normalised Gaussian kernel is 1/(2σ√π): the jitter falls to a quarter.
    assert smooth(noise).std() == pytest.approx(1 / np.sqrt(2 * 5 * np.sqrt(np.pi)), rel=0.1)


def test_nan_rows_take_no_part():
    x = np.linspace(0, 1, 30)[:, None].repeat(2, 1)
    x[10:14] = NAN
    out = smooth(x, sigma=2, radius=6)
    assert np.isnan(out[10:14]).all()
    assert np.isfinite(out[:10]).all()
    assert np.isfinite(out[14:]).all()
    np.testing.assert_allclose(smooth(np.where(np.isnan(x), NAN, 4.0), 2, 6)[[9, 14]], 4.0)


@pytest.mark.parametrize("length", [0, 1, 3])
def test_short_tracks(length):
    x = np.ones((length, 5, 2))
    np.testing.assert_allclose(smooth(x), x)
    np.testing.assert_allclose(fill_gaps(x, 5), x)
    np.testing.assert_allclose(smooth(x, sigma=0), x)
