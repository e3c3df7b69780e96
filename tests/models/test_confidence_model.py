"""The recipe of the error model: it learns what the evidence says, by `keep.train`, and resumes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from keep import train
from keep.archs.confidence import ConfidenceHead, to_log
from keep.archs.evidence import EVIDENCE
from keep.data.evidence import EvidenceMaps, read_maps
from keep.evaluation.confidence.collect import write_maps
from keep.models.confidence_model import ConfidenceModel
from keep.utils.errors import UserError
from keep.utils.weight_files import load, network_state

OPTIONS = Path(__file__).resolve().parents[2] / "options/lite/confidence.yml"


@pytest.fixture
def maps(tmp_path) -> Path:
    """Six clips whose errors follow the first map."""
    rng = np.random.default_rng(0)
    for i in range(6):
        evidence = rng.random((4, len(EVIDENCE), 8, 8))
        errors = np.stack([20 * evidence[:, 0], 0.4 * evidence[:, 0]], 1) * rng.uniform(0.8, 1.2, (4, 2, 8, 8))
        write_maps(tmp_path / f"maps/{i}.npz", evidence, errors, {"name": f"clip{i}"}, "key")
    return tmp_path / "maps"


def test_maps_are_read_as_they_were_written(maps):
    clip = read_maps(maps / "2.npz")
    assert clip["name"] == "clip2"
    assert clip["names"] == list(EVIDENCE)
    assert clip["evidence"].shape == (4, len(EVIDENCE), 8, 8)
    assert clip["errors"].dtype == np.float32
    (maps / "2.npz").write_bytes((maps / "2.npz").read_bytes()[:500])
    with pytest.raises(UserError, match=r"2\.npz: no maps of a clip, or damaged"):
        read_maps(maps / "2.npz")


def test_a_sample_depends_on_seed_and_position_alone(maps):
    a, b = EvidenceMaps(maps), EvidenceMaps(maps)
    for position in (0, 7, 7):
        x, y = a[3, position], b[3, position]
        assert x["name"] == y["name"]
        assert torch.equal(x["lq"], y["lq"])
    assert {a[3, i]["name"] for i in range(6)} == {f"clip{i}" for i in range(6)}
    assert a[3, 0]["lq"].shape == (4, len(EVIDENCE), 8, 8)
    assert a[3, 0]["gt"].shape == (4, 2, 8, 8)
    with pytest.raises(UserError, match="no maps of restored clips"):
        EvidenceMaps(maps / "none")


def test_the_loss_is_the_pinball_loss_of_the_logarithms():
    torch.manual_seed(0)
    recipe = ConfidenceModel(ConfidenceHead(width=4, layers=1, level=0.8, below=0.25))
    batch = {"lq": torch.rand(2, 3, len(EVIDENCE), 4, 4), "gt": torch.rand(2, 3, 2, 4, 4) * 9}
    recipe.eval()
    ((_, terms),) = list(recipe.losses(batch, 0))
    quantiles, target = recipe.net(batch["lq"].flatten(0, 1)), to_log(batch["gt"].flatten(0, 1))
    for number, name in enumerate(("luma", "LPIPS")):
        total = 0.0
        for k, level in enumerate((0.05, 0.5, 0.85)):
            missed = target[:, number] - quantiles[:, number, k]
            total += torch.where(missed > 0, level * missed, (level - 1) * missed).mean().item() / 3
        assert terms[name].item() == pytest.approx(total, rel=1e-4)
    with pytest.raises(UserError, match="trains on EvidenceMaps"):
        next(recipe.losses({"gt": torch.zeros(1, 2, 3, 32, 32)}, 0))


def test_it_trains_by_the_command(maps, tmp_path):
    settings = [
        "--set", f"root={tmp_path / 'runs'}", "--set", f"data.train.root={maps}", "--set", "train.iters=40",
        "--set", "train.warmup=0", "--set", "train.optim.lr=1e-2", "--set", "log.interval=10",
    ]  # fmt: skip
    train.command(["-opt", str(OPTIONS), "--dry-run", *settings])
    assert not (tmp_path / "runs").exists()
    train.command(["-opt", str(OPTIONS), *settings])
    folder = tmp_path / "runs/lite_confidence"
    content = load(folder / "models/net_latest.pth")
    assert content["arch"]["type"] == "ConfidenceHead"
    head = ConfidenceHead().eval()
    head.load_state_dict(dict(network_state(content, folder)[0]))
    clip = read_maps(maps / "0.npz")
    with torch.no_grad():
        middle = head(torch.from_numpy(clip["evidence"]))[:, 0, 1]
    assert np.corrcoef(middle.flatten().numpy(), clip["errors"][:, 0].ravel())[0, 1] > 0.5
