import math

import numpy as np
import pytest

from keep.degradation.blur import GaussianBlur, gaussian_kernel, rotated_kernel
from keep.degradation.noise import GaussianNoise
from keep.degradation.pipeline import stages
from keep.degradation.resize import Downsample
from keep.utils.errors import UserError


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


@pytest.mark.parametrize(("sigma_x", "sigma_y", "angle"), [(10.0, 2.0, 0.5), (3.0, 6.0, 2.2), (4.0, 4.0, 1.0)])
def test_an_anisotropic_kernel_has_its_moments(sigma_x: float, sigma_y: float, angle: float) -> None:
    kernel = rotated_kernel(sigma_x, sigma_y, angle).astype(np.float64)
    radius = len(kernel) // 2
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    covariance = np.array([[(kernel * a * b).sum() for a in (x, y)] for b in (x, y)])
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    expected = turn @ np.diag([sigma_x**2, sigma_y**2]) @ turn.T
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(covariance, expected, atol=0.01 * max(sigma_x, sigma_y) ** 2)


def test_the_anisotropic_blur_applies_that_kernel() -> None:
    response = GaussianBlur().apply(impulse(), 6.0, 2.0, 0.5)[0, :, :, 2]
    kernel = rotated_kernel(6.0, 2.0, 0.5)  # point-symmetric: correlation is convolution
    inner = response[64 - len(kernel) // 2 : 65 + len(kernel) // 2, 64 - len(kernel) // 2 : 65 + len(kernel) // 2]
    np.testing.assert_allclose(inner, kernel, atol=1e-6)


def test_anisotropic_kernels_come_with_their_probability() -> None:
    rng, step = np.random.default_rng(0), GaussianBlur((2, 10), anisotropic=0.3)
    drawn = [step.draw(rng) for _ in range(1000)]
    share = sum("sigma_y" in d for d in drawn) / 1000
    assert share == pytest.approx(0.3, abs=0.04)
    angles = [d["angle"] for d in drawn if "angle" in d]
    assert min(angles) < 0.1
    assert max(angles) > math.pi - 0.1
    assert all(2 <= d["sigma"] <= 10 and 2 <= d.get("sigma_y", 2) <= 10 for d in drawn)
    assert not any("sigma_y" in GaussianBlur((2, 10)).draw(rng) for _ in range(50))


def test_taps_cut_the_kernel() -> None:
    response = GaussianBlur((10, 10), taps=21).apply(impulse(), 10.0)[0, 64, :, 0]
    assert np.count_nonzero(response) == 21
    x = np.arange(129) - 64
    assert math.sqrt((response * x**2).sum() / response.sum()) == pytest.approx(5.6, abs=0.1)  # what is lost by it
    with pytest.raises(UserError, match="taps must be odd"):
        GaussianBlur(taps=20)


@pytest.mark.parametrize("mode", ["area", "bilinear", "bicubic"])
@pytest.mark.parametrize(("sigma", "scale"), [(0.0, 4), (0.6, 4), (2.0, 4), (10.0, 4), (2.0, 2), (3.0, 3), (1.0, 1)])
@pytest.mark.parametrize("between", [False, True])
def test_blur_where_the_small_frame_samples_is_blur_then_downsampling(
    texture: np.ndarray, mode: str, sigma: float, scale: int, between: bool
) -> None:
    clip = texture[:2, :48, :72]
    steps = [(GaussianBlur(), {"sigma": sigma}), (Downsample(scale), {"mode": mode})]
    if between:
        steps.insert(1, (GaussianNoise(grey=0.5), {"sigma": 8.0, "seed": 3, "grey": True}))
    expected = clip.astype(np.float32)
    for step, drawn in steps:
        expected = step.apply(expected, **drawn)
    fused = list(stages(steps))
    assert len(fused) == (len(steps) if mode == "bicubic" and scale < 4 else 1)  # there the frame's border plays in
    for source in (clip, clip.astype(np.float32)):
        out = source
        for _, function in fused:
            out = function(out)
        np.testing.assert_allclose(out, expected, atol=2e-3)


def test_what_cannot_be_done_at_once_is_not() -> None:
    down = (Downsample(), {"mode": "area"})
    assert GaussianBlur().fuse({"sigma": 2.0, "sigma_y": 3.0, "angle": 0.0}, [down]) is None
    assert GaussianBlur().fuse({"sigma": 2.0}, []) is None
    assert GaussianBlur().fuse({"sigma": 2.0}, [(GaussianBlur(), {"sigma": 1.0}), down]) is None
    with pytest.raises(UserError, match="62x64 are not divisible by scale 4"):
        next(stages([(GaussianBlur(), {"sigma": 2.0}), down]))[1](np.zeros((1, 64, 62, 3), np.uint8))
