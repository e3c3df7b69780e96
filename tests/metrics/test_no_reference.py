"""Metrics of pyiqa, with a stand-in for the package."""

import builtins
import sys
from types import SimpleNamespace

import pytest
import torch

from keep.metrics.no_reference import PyIQA
from keep.utils.errors import UserError


class Brightness(torch.nn.Module):
    metric_mode, lower_better = "NR", False

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        assert frames.min() >= 0
        assert frames.max() <= 1
        return frames.mean((1, 2, 3))[:, None]


@pytest.fixture
def package(monkeypatch):
    def create_metric(name: str, device: torch.device) -> torch.nn.Module:
        if name == "none":
            raise ValueError("Unknown metric\nin registry")
        net = Brightness()
        net.metric_mode = "FR" if name == "psnr" else "NR"
        return net

    monkeypatch.setitem(sys.modules, "pyiqa", SimpleNamespace(create_metric=create_metric))


def test_values_are_those_of_the_package_and_the_name_says_so(package):
    metric = PyIQA("musiq")
    assert (metric.name, metric.higher_is_better, metric.needs_truth) == ("musiq (pyiqa)", True, False)
    frames = torch.arange(0, 200, 20, dtype=torch.uint8)[:, None, None, None].expand(10, 3, 4, 4).contiguous()
    assert metric(frames, frames) == pytest.approx([v / 255 for v in range(0, 200, 20)], abs=1e-6)


def test_what_is_refused(package):
    with pytest.raises(UserError, match=r"metric none: pyiqa cannot build it: Unknown metric$"):
        PyIQA("none")
    with pytest.raises(UserError, match="metric psnr: it compares with a reference"):
        PyIQA("psnr")


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "pyiqa", raising=False)
    real = builtins.__import__

    def without(name: str, *args, **kwargs):
        if name == "pyiqa":
            raise ImportError("No module named 'pyiqa'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match="metric musiq: it needs the package pyiqa: pip install pyiqa"):
        PyIQA()
