import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from keep.metrics import Clip, SetMetric
from keep.metrics.fvd import FVD, frechet_distance
from keep.utils.errors import UserError


class Means(torch.nn.Module):
    """In I3D's place: means of the channels, of a clip (N, 3, T, H, W) in [0, 255]."""

    def forward(self, x: torch.Tensor, rescale: bool, resize: bool, return_features: bool) -> torch.Tensor:
        assert rescale
        assert resize
        assert return_features
        return x.mean(dim=[2, 3, 4])


@pytest.fixture
def weights(tmp_path):
    torch.jit.script(Means()).save(str(tmp_path / "i3d.pt"))
    return tmp_path / "i3d.pt"


def test_frechet_distance_equals_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 6)), rng.normal(1, 2, size=(40, 6)) @ rng.normal(size=(6, 6))
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(cov_a + cov_b - 2 * np.real(sqrtm(cov_a @ cov_b)))
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_by_hand():
    a = np.array([[-1.0], [1.0]]) * np.sqrt(2)  # mean 0, variance 4
    b = np.array([[2.0], [4.0]]) / np.sqrt(2)  # mean 3/√2, variance 1
    assert frechet_distance(a, b) == pytest.approx(4.5 + (2 - 1) ** 2)


def test_frechet_distance_of_few_samples():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(5, 40))  # covariances of rank 4
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a, a + 1) == pytest.approx(40, rel=1e-6)


def test_samples_are_whole_windows(weights):
    fvd = FVD(weights, frames=2)
    frames = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 8, 8).contiguous()
    samples = fvd.samples(Clip(frames))
    np.testing.assert_allclose(samples, [[0.5] * 3, [2.5] * 3])
    assert fvd.samples(Clip(frames[:1])).shape[0] == 0
    assert isinstance(fvd, SetMetric)
    assert fvd.name == "FVD (I3D, 2 frames)"


def test_value_over_clips(weights):
    fvd = FVD(weights, at_least=4)
    rng = np.random.default_rng(0)
    clips = [rng.normal(size=(n, 3)) for n in (2, 3)] + [np.zeros((0, 0))]
    everything = np.concatenate(clips[:2])
    assert fvd.value(clips, [c + 1 for c in clips]) == pytest.approx(frechet_distance(everything, everything + 1))


def test_too_few_samples(weights):
    one = [np.zeros((1, 3))]
    with pytest.raises(UserError, match="FVD of 1 windows"):
        FVD(weights).value(one, one)
    with pytest.raises(UserError, match="FVD of 0 windows"):
        FVD(weights).value([], [])


def test_a_file_that_is_no_torchscript(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        FVD(tmp_path / "none.pt")
    torch.save({}, tmp_path / "state.pt")
    with pytest.raises(UserError, match="cannot be read as TorchScript"):
        FVD(tmp_path / "state.pt")
