"""The report of a restorer with an error model: the map beside the gain, expected against true error."""

import numpy as np
import torch
from networks import clip, tiny_file

from keep.archs.confidence import ConfidenceHead
from keep.baselines.keep_restorer import KEEPRestorer
from keep.data.video_io import read_video
from keep.evaluation.report import media
from keep.inference.confidence import network_hash, path_of, save_confidence


def test_a_restorer_with_an_error_model_gives_its_errors(tmp_path):
    path = tiny_file(tmp_path)
    head = ConfidenceHead(width=4, layers=1).eval()
    save_confidence(head, {"type": "ConfidenceHead", "width": 4, "layers": 1}, path_of(path), network_hash(path), {})
    lq = clip(3)[0][0]
    plain, judging = KEEPRestorer(path, scale=1), KEEPRestorer(path, scale=1, confidence=True)
    assert torch.equal(plain(lq), judging(lq))
    assert plain.errors is None
    assert judging.errors is not None
    assert judging.errors.shape == (3, 3, 4, 4)
    assert (judging.errors.diff(dim=0) >= 0).all()
    assert path_of(path) in judging.files
    back = KEEPRestorer(path, scale=1, min_confidence=1.0)(lq)
    assert (back - lq).abs().mean() < (plain(lq) - lq).abs().mean()


def test_the_pictures_of_expected_and_true_error(tmp_path):
    rng = np.random.default_rng(0)
    truth = rng.integers(40, 200, (4, 64, 64, 3), dtype=np.uint8)
    output = truth.copy()
    output[:, :, 32:] += 12
    clips = {"input": truth, "KEEP": output, "truth": truth}
    true = media.true_error(output[0], truth[0], 8)
    assert np.abs(true - np.repeat([[0.0] * 4 + [12.0] * 4], 8, axis=0)).max() < 0.01
    middle = np.stack([true] * 4) + 1
    bands = np.stack([middle / 2, middle, middle * 2])
    gains = np.full((4, 8, 8), 0.5)
    gains[0] = np.nan
    found = media.save_clip(tmp_path, tmp_path / "m", clips, {"KEEP": gains}, 10, 1, {"KEEP": bands})
    assert len(found.judged["KEEP"]) == 2
    assert all((tmp_path / p).is_file() for p in found.judged["KEEP"])
    shown = read_video(tmp_path / found.errors["KEEP"]).astype(int)
    assert shown.shape == (4, 64, 64, 3)
    assert shown[:, :, :24].max() < 60
    assert shown[:, :, 40:].mean() > 80
    assert media.save_clip(tmp_path, tmp_path / "n", clips, {}, 10, 1).judged == {}
