import numpy as np
import pytest

from keep.degradation.blur import GaussianBlur, gaussian_kernel
from keep.errors import UserError


def impulse(size: int = 129) -> np.ndarray:
    clip = np.zeros((1, size, size, 3), np.float32)
    clip[0, size // 2, size // 2] = 1
    return clip


@pytest.mark.parametrize("sigma", [0.7, 2.0, 5.0, 10.0])
def test_sigma_is_the_standard_deviation_of_the_response(sigma: float) -> None:
    response = GaussianBlur((sigma, sigma)).apply(impulse(), sigma)[0, :, :, 0].astype(np.float64)
    x = np.arange(129) - 64
    assert response.sum() == pytest.approx(1, abs=1e-4)
    for profile in (response.sum(0), response.sum(1)):
        assert (profile * x).sum() == pytest.approx(0, abs=1e-3)
        assert np.sqrt((profile * x**2).sum()) == pytest.approx(sigma, rel=0.005)


def test_the_border_is_reflected_even_where_the_kernel_is_wider_than_the_frame() -> None:
    clip = np.full((2, 9, 7, 3), 93, np.float32)
    np.testing.assert_allclose(GaussianBlur().apply(clip, 10.0), 93, atol=1e-3)

    row = np.random.default_rng(0).uniform(0, 255, 7)
    clip = np.broadcast_to(row[None, None, :, None], (1, 9, 7, 3)).astype(np.float32)
    kernel = gaussian_kernel(2.0)
    expected = np.convolve(np.pad(row, len(kernel) // 2, mode="reflect"), kernel, mode="valid")
    np.testing.assert_allclose(GaussianBlur().apply(clip, 2.0)[0, 4, :, 1], expected, atol=1e-3)


def test_zero_is_no_blur() -> None:
    clip = impulse(9)
    assert GaussianBlur((0, 0)).draw(np.random.default_rng(0)) == {"sigma": 0}
    assert np.array_equal(GaussianBlur((0, 0)).apply(clip, 0), clip)


def test_sigma_fills_its_range() -> None:
    rng = np.random.default_rng(0)
    drawn = [GaussianBlur((2, 10)).draw(rng)["sigma"] for _ in range(500)]
    assert min(drawn) >= 2
    assert max(drawn) <= 10
    assert np.quantile(drawn, [0.02, 0.5, 0.98]) == pytest.approx([2.16, 6, 9.84], abs=0.5)


@pytest.mark.parametrize("bounds", [(5, 2), (-1, 2)])
def test_a_range_that_is_none_is_an_error(bounds: tuple[float, float]) -> None:
    with pytest.raises(UserError, match="GaussianBlur: sigma must be"):
        GaussianBlur(bounds)
