import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from keep.config.registry import METRICS
from keep.metrics.psnr_ssim import PSNR, SSIM
from keep.utils.errors import UserError


@pytest.fixture
def clips():
    rng = np.random.default_rng(0)
    smooth = np.kron(rng.integers(0, 256, (3, 3, 9, 11)), np.ones((8, 8)))[..., :70, :83]
    noise = rng.normal(0, [[[[5]]], [[[20]]], [[[60]]]], smooth.shape)
    target = smooth.astype(np.uint8)
    output = np.clip(smooth + noise, 0, 255).round().astype(np.uint8)
    return torch.from_numpy(output), torch.from_numpy(target)


def test_psnr_equals_skimage(clips):
    expected = [peak_signal_noise_ratio(t.numpy(), o.numpy(), data_range=255) for o, t in zip(*clips, strict=True)]
    values = PSNR()(*clips)
    assert values.dtype == np.float64
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_ssim_equals_skimage(clips):
    expected = [
        structural_similarity(
            t.numpy(),
            o.numpy(),
            channel_axis=0,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for o, t in zip(*clips, strict=True)
    ]
    values = SSIM()(*clips)
    assert values.dtype == np.float64
    np.testing.assert_allclose(values, expected, atol=1e-4)


def test_identical_frames(clips):
    assert np.isposinf(PSNR()(clips[0], clips[0])).all()
    np.testing.assert_allclose(SSIM()(clips[0], clips[0]), 1)


@pytest.mark.parametrize("name", ["PSNR", "SSIM"])
def test_bad_input(name, clips):
    metric = METRICS.spec(name).build()
    assert metric.name == name
    assert metric.higher_is_better
    output, target = clips
    with pytest.raises(UserError, match="differ in shape"):
        metric(output, target[..., :-1])
    with pytest.raises(UserError, match="uint8"):
        metric(output.float(), target.float())


def test_ssim_needs_one_window():
    tiny = torch.zeros(1, 3, 10, 20, dtype=torch.uint8)
    with pytest.raises(UserError, match="11×11"):
        SSIM()(tiny, tiny)
