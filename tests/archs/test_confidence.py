"""The error model: order of its quantiles, calibration by strata, size."""

import pytest
import torch

from keep.archs.confidence import ConfidenceHead, from_log, to_log
from keep.archs.evidence import EVIDENCE
from keep.utils.errors import UserError


def head(**options) -> ConfidenceHead:
    torch.manual_seed(0)
    return ConfidenceHead(**options).eval()


@torch.no_grad()
def test_quantiles_ascend_and_do_not_depend_on_other_frames(device):
    model, maps = head().to(device), torch.rand(3, len(EVIDENCE), 8, 8, device=device)
    quantiles = model(maps)
    assert quantiles.shape == (3, 2, 3, 8, 8)
    assert (quantiles.diff(dim=2) >= 0).all()
    torch.testing.assert_close(model(maps[1:2]), quantiles[1:2])


def test_the_default_head_has_fewer_than_50_000_parameters():
    assert sum(p.numel() for p in head().parameters()) < 50_000


@torch.no_grad()
def test_the_size_of_the_face_is_not_read():
    model, maps = head(), torch.rand(1, len(EVIDENCE), 4, 4)
    other = maps.clone()
    other[:, list(EVIDENCE).index("size")] = 9
    assert torch.equal(model(maps), model(other))
    with pytest.raises(UserError, match="speed: no such map; known: gain"):
        ConfidenceHead(evidence=("gain", "speed"))


def test_logarithms_of_errors_and_back():
    errors = torch.tensor([[[0.0, 3.0], [10.0, 255.0]], [[0.0, 0.1], [0.5, 1.0]]]).transpose(0, 1)[None][0]
    torch.testing.assert_close(from_log(to_log(errors)), errors, atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_calibration_moves_the_ends_by_the_amount_of_the_frames_stratum():
    model = head()
    quantiles = torch.zeros(2, 2, 3, 4, 4)
    quantiles[:, :, 0], quantiles[:, :, 2] = -1, 1
    quantiles[1] += 5
    model.edges[:] = torch.tensor([2.0, 20.0])
    model.shift[0, 0, 0], model.shift[0, 1, 0] = 0.5, 0.25
    model.shift[1, :, 1] = -3  # narrower than nothing: the ends stop at the middle
    found = model.calibrated(quantiles)
    assert model.stratum(quantiles).tolist() == [0, 1]
    assert found[0, 0, :, 0, 0].tolist() == [-1.5, 0, 1.25]
    assert found[0, 1, :, 0, 0].tolist() == [-1, 0, 1]
    assert found[1, 0, :, 0, 0].tolist() == [4, 5, 6]
    assert found[1, 1, :, 0, 0].tolist() == [5, 5, 5]


@torch.no_grad()
def test_bands_are_in_grey_levels_and_never_negative():
    bands = head().bands(torch.rand(2, len(EVIDENCE), 4, 4))
    assert bands.middle.shape == (2, 2, 4, 4)
    assert (bands.low >= 0).all()
    assert (bands.low <= bands.middle).all()
    assert (bands.middle <= bands.high).all()
