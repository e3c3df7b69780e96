"""Calibration holds the stated share, and the figures have the values that follow from their definitions."""

import numpy as np
import pytest
import torch

from keep.archs.confidence import ConfidenceHead
from keep.archs.evidence import EVIDENCE
from keep.data.base import SourceClip
from keep.evaluation.confidence.calibrate import calibrate, inside, predict
from keep.evaluation.confidence.collect import part_of, person_of, positions
from keep.evaluation.confidence.score import constant_width, dropped, figures, pooled, spearman, table


def head() -> ConfidenceHead:
    """Not trained, but about right on average."""
    torch.manual_seed(0)
    model = ConfidenceHead(width=4, layers=1).eval()
    with torch.no_grad():
        for value, channel in ((np.log(4), 0), (np.log(0.1), 3)):
            model.get_parameter("out.bias")[channel] = value
        model.out.weight.mul_(0.1)
    return model


def clips(count: int, seed: int, shift: float = 0.0) -> list[dict]:
    """Clips of 3 frames whose errors follow one evidence map."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        evidence = rng.random((3, len(EVIDENCE), 8, 8)).astype(np.float32)
        scale = np.stack([8 * evidence[:, 0], 0.2 * evidence[:, 0]], 1)
        errors = scale * np.exp(rng.normal(shift, 0.5, (3, 2, 8, 8)))
        found.append({"name": f"clip{i}", "evidence": evidence, "errors": errors.astype(np.float32)})
    return found


def test_the_intervals_hold_the_stated_share_of_new_clips():
    model = head()
    about = calibrate(model, clips(30, 0))
    assert about["clips"] == 30
    assert about["held"] == pytest.approx([0.9, 0.9], abs=0.02)
    held = torch.stack(
        [inside(model.calibrated(q), y).float().mean((0, 2, 3)) for q, y in (predict(model, c) for c in clips(30, 1))]
    )
    assert held.mean(0).tolist() == pytest.approx([0.9, 0.9], abs=0.03)
    low, high = model.tails
    bands, true = pooled(model, clips(30, 1), 0)
    assert (true < bands[0]).mean() == pytest.approx(low, abs=0.02)
    assert (true > bands[2]).mean() == pytest.approx(high, abs=0.02)


def test_strata_whose_clips_differ_more_get_wider_intervals():
    """In clips with large errors the whole clip is off by a factor; the clips held least are held about as well."""
    model, rng, given = head(), np.random.default_rng(5), clips(80, 2)
    with torch.no_grad():
        model.get_parameter("context.0.weight").zero_()
    for i, clip in enumerate(given):
        clip["evidence"] = clip["evidence"] * 0.05 + i / len(given)
        clip["errors"] = clip["errors"] * np.float32(np.exp(rng.normal(0, 1.5 * i / len(given))))
    calibrate(model, given)
    pairs = [predict(model, clip) for clip in given]
    held = np.array([inside(model.calibrated(q), y)[:, 0].float().mean().item() for q, y in pairs])
    strata = np.array([model.stratum(q)[0].item() for q, _ in pairs])
    least = [np.quantile(held[strata == k], 0.1) for k in np.unique(strata)]
    assert held.mean() == pytest.approx(0.9, abs=0.02)
    assert len(least) > 1
    assert max(least) - min(least) < 0.05


def test_figures_of_order():
    x = np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 9, 100])
    assert spearman(x, x**2) == pytest.approx(1)
    assert spearman(x, -x) == pytest.approx(-1)
    assert spearman(x, np.ones(10)) == 0
    assert spearman(np.array([1.0, 1, 2]), np.array([5.0, 5, 6])) == pytest.approx(1)
    assert dropped(x, x) == pytest.approx(1 - 4.5 / 14.5)
    assert dropped(-x, x) == pytest.approx(1 - x[2:].mean() / 14.5)


def test_the_constant_interval_is_the_narrowest():
    errors = np.array([0.0, 1, 1.5, 2, 50])
    assert constant_width(errors, 0.6) == 1
    assert constant_width(errors, 1.0) == 50


def test_all_figures_and_their_table():
    model = head()
    calibrate(model, clips(20, 0))
    result = figures(model, {"mild": clips(4, 1), "heavy": clips(4, 2)})
    own = result["luma"]
    assert len(own["clips"]) == 8
    mean = np.mean([c["held"] for c in own["clips"]])
    assert own["all"]["held"]["mean"] == pytest.approx(mean)
    assert own["all"]["held"]["low"] <= mean <= own["all"]["held"]["high"]
    assert own["narrower"] == pytest.approx(1 - np.mean([c["width"] for c in own["clips"]]) / own["constant width"])
    text = table(result)
    assert "| mild |" in text
    assert "| LPIPS | 90 % intervals hold |" in text


def test_people_are_in_one_part_and_folders_take_turns():
    assert person_of("videos/talk_003") == person_of("videos/talk_012") == "videos/talk"
    assert person_of("photographs/london/108_03") == "photographs/london/108"
    assert len({part_of(f"videos/talk_{i:03d}") for i in range(9)}) == 1
    parts = [part_of(f"photographs/name{chr(97 + i)}{chr(97 + j)}") for i in range(20) for j in range(20)]
    assert 0.25 < parts.count("calibration") / len(parts) < 0.42

    class Data:
        def clip_at(self, seed: int, position: int) -> SourceClip:
            kind = "videos" if position % 10 == 0 else "photographs"
            return SourceClip(f"{kind}/{position}", 1, None)

    names = [Data().clip_at(0, position).name for position, _ in positions(Data(), 0, 20)]
    assert len(names) == 20
    assert sum(name.startswith("videos") for name in names) == 10
