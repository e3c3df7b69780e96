"""EDVR, BasicVSR and BasicVSR++ as the package basicsr defines them, with the sizes of their weight files.

basicsr cannot be imported with a recent torchvision, which has no ``functional_tensor``. Only the files that define
these networks are imported here, without the package's own ``__init__``.
"""

import importlib
import importlib.util
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from keep.config.registry import BASELINES
from keep.degradation.resize import upsample
from keep.utils import weight_files
from keep.utils.errors import UserError
from keep.utils.paths import expand

State = Mapping[str, Tensor]
SCALE = 4


@BASELINES.register()
class EDVR:
    """EDVR (Wang et al., CVPRW 2019) of basicsr, on a sliding window of frames.

    Beyond the ends of the clip the window is filled from its other side, as in basicsr's tests (``reflection_circle``).

    Args:
        weights: a file with ``params`` of basicsr's EDVR, of any size.
    """

    def __init__(self, weights: Path) -> None:
        state = _state(weights, "EDVR", "pcd_align.")
        self.weights, self.files = weights, (expand(weights),)
        self.enlarges = "predeblur.stride_conv_hr1.weight" in state
        width = _shape(state, "feature_extraction.0.conv1.weight", weights)[0]
        with_tsa = "fusion.feat_fusion.weight" in state
        fusion = "fusion.feat_fusion.weight" if with_tsa else "fusion.weight"
        self.window = _shape(state, fusion, weights)[1] // width
        self.net = _load("edvr_arch", "EDVR", state, weights, {
            "num_feat": width,
            "num_frame": self.window,
            "deformable_groups": _shape(state, "pcd_align.cas_dcnpack.conv_offset.weight", weights)[0] // 27,
            "num_extract_block": _blocks(state, "feature_extraction."),
            "num_reconstruct_block": _blocks(state, "reconstruction."),
            "hr_in": self.enlarges,
            "with_predeblur": any(k.startswith("predeblur.") for k in state),
            "with_tsa": with_tsa,
        })  # fmt: skip

    def to(self, device: torch.device) -> "EDVR":
        self.net.to(device)
        return self

    def describe(self) -> str:
        return f"EDVR (basicsr) {self.weights}"

    @torch.no_grad()
    def __call__(self, lq: Tensor) -> Tensor:
        """(T, 3, h, w) in [-1, 1], h and w multiples of 4 → (T, 3, 4h, 4w) in [-1, 1]."""
        if lq.shape[-2] % 4 or lq.shape[-1] % 4:
            raise UserError(f"EDVR restores frames whose sides are multiples of 4, not {lq.shape[-1]}×{lq.shape[-2]}")
        frames = (upsample(lq, SCALE) if self.enlarges else lq) / 2 + 0.5
        windows = (frames[window_around(t, len(lq), self.window)] for t in range(len(lq)))
        return torch.cat([(self.net(w[None]) * 2 - 1).clamp(-1, 1) for w in windows])


@BASELINES.register()
class BasicVSR:
    """BasicVSR (Chan et al., CVPR 2021) of basicsr, on whole clips.

    Args:
        weights: a file with ``params`` of basicsr's BasicVSR, of any size.
    """

    def __init__(self, weights: Path) -> None:
        state = _state(weights, "BasicVSR", "backward_trunk.")
        self.weights, self.files = weights, (expand(weights),)
        self.net = _load("basicvsr_arch", "BasicVSR", state, weights, {
            "num_feat": _shape(state, "backward_trunk.main.0.weight", weights)[0],
            "num_block": _blocks(state, "backward_trunk.main.2."),
        })  # fmt: skip

    def to(self, device: torch.device) -> "BasicVSR":
        self.net.to(device)
        return self

    def describe(self) -> str:
        return f"BasicVSR (basicsr) {self.weights}"

    @torch.no_grad()
    def __call__(self, lq: Tensor) -> Tensor:
        """(T, 3, h, w) in [-1, 1] → (T, 3, 4h, 4w) in [-1, 1]."""
        _at_least(33, lq, "BasicVSR")  # its flow network has six levels
        return _whole_clip(self.net, lq)


@BASELINES.register()
class BasicVSRPlusPlus:
    """BasicVSR++ (Chan et al., CVPR 2022) of basicsr, on whole clips; frames of at least 64×64.

    basicsr builds no alignment without CUDA. Here it is always built, as torchvision's deformable convolution runs on
    any device.

    Args:
        weights: a file with ``params`` of basicsr's BasicVSRPlusPlus, of any size, with or without ×4.
    """

    def __init__(self, weights: Path) -> None:
        state = _state(weights, "BasicVSR++", "deform_align.")
        self.weights, self.files = weights, (expand(weights),)
        self.enlarges = "feat_extract.main.0.weight" not in state
        with mock.patch("torch.cuda.is_available", return_value=True):  # basicsr builds the alignment only then
            self.net = _load("basicvsrpp_arch", "BasicVSRPlusPlus", state, weights, {
                "mid_channels": _shape(state, "backbone.backward_1.main.0.weight", weights)[0],
                "num_blocks": _blocks(state, "backbone.backward_1.main.2."),
                "is_low_res_input": not self.enlarges,
            })  # fmt: skip

    def to(self, device: torch.device) -> "BasicVSRPlusPlus":
        self.net.to(device)
        if torch.device(device).type != "cuda":
            self.net.cpu_cache_length = sys.maxsize  # it would fetch cached frames with .cuda()
        return self

    def describe(self) -> str:
        return f"BasicVSR++ (basicsr) {self.weights}"

    @torch.no_grad()
    def __call__(self, lq: Tensor) -> Tensor:
        """(T, 3, h, w) in [-1, 1] → (T, 3, 4h, 4w) in [-1, 1]."""
        _at_least(64, lq, "BasicVSR++")
        self.net.is_mirror_extended = False  # it is never reset: one mirrored clip would affect all later ones
        return _whole_clip(self.net, upsample(lq, SCALE) if self.enlarges else lq)


def window_around(t: int, length: int, window: int) -> list[int]:
    """Frames of the window centred at ``t``; those beyond the clip are replaced from the other side of the window."""
    around = window // 2
    last = length - 1
    frames = []
    for i in range(t - around, t + around + 1):
        if i < 0:
            i = t + around - i
        elif i > last:
            i = t - around - (i - last)
        frames.append(min(max(i, 0), last))  # a clip shorter than the window
    return frames


def _at_least(side: int, lq: Tensor, name: str) -> None:
    if min(lq.shape[-2:]) < side:
        raise UserError(f"{name} restores frames of at least {side}×{side}, not {lq.shape[-1]}×{lq.shape[-2]}")


def _whole_clip(net: Any, frames: Tensor) -> Tensor:
    """Run a recurrent network of range [0, 1], which needs two frames, on frames in [-1, 1]."""
    clip = frames if len(frames) > 1 else frames.repeat(2, 1, 1, 1)
    return (net(clip[None] / 2 + 0.5)[0, : len(frames)] * 2 - 1).clamp(-1, 1)


# --- weights ----------------------------------------------------------------------------------------------------


def _state(weights: Path, name: str, marker: str) -> State:
    """The tensors under ``params_ema``, ``params``, or at the top of the file."""
    path = expand(weights)
    if not path.is_file():
        raise UserError(f"{name}: there is no file {path}")
    state = {k.removeprefix("module."): v for k, v in weight_files.load_network(path).items()}
    if not any(k.startswith(marker) for k in state):
        raise UserError(f"{weights} does not hold basicsr's {name}: nothing in it begins with {marker}")
    return state


def _shape(state: State, key: str, weights: Path) -> torch.Size:
    if key not in state:
        raise UserError(f"{weights} holds another network: it lacks {key}")
    return state[key].shape


def _blocks(state: State, prefix: str) -> int:
    """Number of numbered modules under ``prefix``."""
    return len({k[len(prefix) :].partition(".")[0] for k in state if k.startswith(prefix)})


def _load(file: str, name: str, state: State, weights: Path, options: Mapping[str, int | bool]) -> Any:
    with torch.random.fork_rng(devices=[]):  # the initial weights must not advance the run's random stream
        net = getattr(_module(file), name)(**options)
    weight_files.fill(net, state, weights)
    return net.requires_grad_(False).eval()


# --- the package ------------------------------------------------------------------------------------------------


@cache
def _module(file: str) -> ModuleType:
    """``basicsr.archs.<file>``, imported without the rest of basicsr."""
    with _bare_package():
        try:
            return importlib.import_module(f"basicsr.archs.{file}")
        except (ImportError, AttributeError) as error:
            raise UserError(f"basicsr's {file} cannot be imported: {error}") from error


@contextmanager
def _bare_package() -> Iterator[None]:
    """Replace basicsr's packages by empty ones with the same path inside the block, and restore them afterwards."""
    package = importlib.util.find_spec("basicsr") if "basicsr" not in sys.modules else sys.modules["basicsr"].__spec__
    if package is None or not package.submodule_search_locations:
        raise UserError("EDVR, BasicVSR and BasicVSR++ need basicsr: pip install keep-vfsr[baselines]")
    folder = Path(package.submodule_search_locations[0])
    stubs = {name: ModuleType(name) for name in ("basicsr", "basicsr.archs", "basicsr.utils", "distutils.version")}
    stubs["basicsr"].__path__ = [str(folder)]
    stubs["basicsr.archs"].__path__ = [str(folder / "archs")]
    stubs["basicsr.utils"].__path__ = [str(folder / "utils")]
    stubs["basicsr.utils"].get_root_logger = lambda: logging.getLogger("basicsr")  # type: ignore[attr-defined]
    # Python 3.12 has no distutils; basicsr compares torchvision's version with it.
    stubs["distutils.version"].LooseVersion = lambda v: [int(n) for n in re.findall(r"\d+", v)[:3]]  # type: ignore[attr-defined]
    stubs["distutils"] = ModuleType("distutils")

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
