"""Single archs of the package basicsr 1.4.2, which cannot be imported as a whole beside a current torchvision."""

import importlib
import importlib.util
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
import torch


def arch(file: str, name: str, **options: Any) -> torch.nn.Module:
    """``basicsr.archs.<file>.<name>`` with random weights, also where they start at zero; skips without the package."""
    package = importlib.util.find_spec("basicsr")
    if package is None or not package.submodule_search_locations:
        pytest.skip("basicsr is not installed: pip install --no-deps basicsr==1.4.2")
    with bare_package(Path(package.submodule_search_locations[0])):
        module = importlib.import_module(f"basicsr.archs.{file}")
        # Without CUDA basicsr builds BasicVSR++ without its alignment.
        with mock.patch("torch.cuda.is_available", return_value=True):
            net = getattr(module, name)(**options)
    randomise(net, gain=1)
    return net.eval()


def randomise(net: torch.nn.Module, gain: float = 0.5) -> None:
    """Random weights, also where they start at zero, and biases of about 0.05.

    With a gain of 0.5 the signal fades and the offsets of deformable convolutions are a few hundredths of a pixel: a
    comparison of outputs then hardly sees them. With 1 it does. SPyNet keeps 0.5, which gives
    a flow of one or two pixels.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in net.named_parameters():
            size = 0.5 if "basic_module." in name else gain
            std = size / p[0].numel() ** 0.5 if p.dim() > 1 else 0.05
            p.copy_(torch.randn(p.shape, generator=generator) * std)


@contextmanager
def bare_package(folder: Path) -> Iterator[None]:
    """Replace basicsr's packages by empty ones with the same path inside the block, and restore them afterwards."""
    stubs: dict[str, Any] = {
        name: ModuleType(name)
        for name in ("basicsr", "basicsr.archs", "basicsr.utils", "distutils", "distutils.version")
    }
    for name, place in (("basicsr", folder), ("basicsr.archs", folder / "archs"), ("basicsr.utils", folder / "utils")):
        stubs[name].__path__ = [str(place)]
    stubs["basicsr.utils"].get_root_logger = lambda: logging.getLogger("basicsr")
    # Python 3.12 has no distutils; basicsr compares torchvision's version with it.
    stubs["distutils.version"].LooseVersion = lambda v: [int(n) for n in re.findall(r"\d+", v)[:3]]

    def replaced(name: str) -> bool:
        return name.partition(".")[0] in ("basicsr", "distutils")

    before = {name: module for name, module in sys.modules.items() if replaced(name)}
    for name in before:
        del sys.modules[name]
    sys.modules.update(stubs)
    try:
        yield
    finally:
        for name in [name for name in sys.modules if replaced(name)]:
            del sys.modules[name]
        sys.modules.update(before)
