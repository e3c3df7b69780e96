import numpy as np
import pytest
import torch

from keep.config.registry import METRICS
from keep.metrics.psnr_ssim import PSNR
from keep.metrics.sigma import Sigma
from keep.utils.errors import UserError


def test_standard_deviation_by_hand(table, reds, eyes):
    from keep.metrics.landmarks import AKD

    akd = AKD(table({0: [[0, 0]], 1: [[0, 0]], 2: [[0.03125, 0]], 3: [[0.0625, 0]], 4: [[0.15625, 0]]}), eyes)
    sigma = Sigma(akd, factor=10)
    values = sigma(reds(2, 3, 4, 1), reds(1, 1, 1, 0))  # 2, 4 and 10 pixels at 512; no face in the last frame
    np.testing.assert_allclose(values, [2, 4, 10, np.nan])
    assert sigma.score(values) == pytest.approx(np.sqrt(104) / 3)  # (100 + 16 + 196) / 9 / 3 about the mean 16/3
    assert sigma.missing(values) == 1
    assert (sigma.name, sigma.higher_is_better, sigma.per_frame, sigma.factor) == ("σ_AKD (table)", False, False, 10)
    assert akd.network.calls == 2  # one for the output, one for the truth: σ costs nothing


def test_steady_is_zero_and_nothing_is_nan():
    sigma = METRICS.spec({"type": "Sigma", "of": "PSNR"}).build()
    a = torch.full((3, 3, 8, 8), 7, dtype=torch.uint8)
    assert sigma.score(sigma(a, a + 1)) == pytest.approx(0, abs=1e-12)
    assert np.isnan(sigma.score(np.full(2, np.nan)))


def test_no_sigma_of_a_sigma():
    with pytest.raises(UserError, match="value for every frame"):
        Sigma(Sigma(PSNR()))
