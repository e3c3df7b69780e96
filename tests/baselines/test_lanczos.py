import numpy as np
import torch
from PIL import Image

from keep.baselines.lanczos import Lanczos, lanczos_matrix
from keep.config.registry import BASELINES


def test_equals_pillow():
    lq = torch.rand(2, 3, 9, 13, generator=torch.Generator().manual_seed(0)) - 0.5  # far from the clamp
    found = Lanczos()(lq)
    assert found.shape == (2, 3, 36, 52)
    for frame, large in zip(lq.flatten(0, 1), found.flatten(0, 1), strict=True):
        expected = np.asarray(Image.fromarray(frame.numpy()).resize((52, 36), Image.Resampling.LANCZOS))
        np.testing.assert_allclose(large.numpy(), expected, atol=1e-5)


def test_a_constant_stays():
    torch.testing.assert_close(lanczos_matrix(5, 3).sum(1), torch.ones(15, dtype=torch.float64))


def test_overshoot_is_clamped():
    lq = torch.full((1, 3, 4, 8), -1.0)
    lq[..., 4:] = 1
    restorer = BASELINES.spec({"type": "Lanczos", "scale": 2}).build().to(torch.device("cpu"))
    assert restorer(lq).abs().max() == 1
    assert restorer.describe() == "Lanczos-3 ×2"
