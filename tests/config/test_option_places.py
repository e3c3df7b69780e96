"""A missing weight file is reported with the full path of the option that names it."""

import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch

from keep.config.reading import load
from keep.config.registry import build_at
from keep.config.schema import TestConfig, TrainConfig
from keep.evaluation.parts import build_parts
from keep.utils import downloads
from keep.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def urlopen(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no connection")

    monkeypatch.setattr(downloads.urllib.request, "urlopen", urlopen)
    monkeypatch.setenv("KEEP_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


def message(*settings: str) -> str:
    config = load(ROOT / "options/tiny/stage1.yml", settings, TrainConfig)
    with pytest.raises(UserError) as error:
        build_at("model", config.model)
    return str(error.value)


def test_a_missing_vgg16_names_its_option_and_the_way_without_it() -> None:
    for loss in ("VGGPerceptual", "{type: LPIPS, net: vgg}"):
        text = message(f"model.perceptual={loss}")
        assert text.startswith("vgg16-397923af.pth is not on this machine")
        assert "set option model.perceptual.weights to its path" in text
        assert text.endswith("model.perceptual.if_missing: skip trains without this loss")


def test_a_path_to_nothing_names_its_option() -> None:
    text = message("model.perceptual={type: LPIPS, net: vgg, weights: none.pth}")
    assert text.startswith("model.perceptual.weights: there is no file none.pth")


def test_a_loss_inside_a_loss_is_named_in_full() -> None:
    text = message("model.regions={type: FaceRegions, pixel: L1, perceptual: {type: LPIPS, net: squeeze}}")
    assert "set option model.regions.perceptual.weights to its path" in text


def test_restorers_and_metrics_of_a_test_are_named_in_full() -> None:
    settings = [
        "restorers={a: Bicubic, b: {type: Spandrel, weights: none.pth}}",
        "metrics=[PSNR, {type: LPIPS, net: alex, weights: none.pth}, {type: IDS, network: ArcFace}]",
    ]
    config = load(ROOT / "options/tiny/test.yml", settings, TestConfig)
    problems = "\n".join(build_parts(config, torch.device("cpu")).problems)
    for name in ("restorers.b.weights: there is no file", "metrics.1.weights: there is no file"):
        assert name in problems
