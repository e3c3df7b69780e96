"""Base classes of the metrics, and clips that cache what was computed from them."""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from keep.config.registry import Spec, dump, summary
from keep.utils.errors import UserError, placed

T = TypeVar("T")


class Clip:
    """Frames with a cache of what was computed from them (faces, embeddings, flow, …), shared by all metrics.

    Args:
        frames: uint8 RGB (T, 3, H, W).
        name: for messages, e.g. ``ground truth``.
    """

    def __init__(self, frames: Tensor, name: str = "clip") -> None:
        self.frames = frames
        self.name = name
        self._cache: dict[Hashable, Any] = {}

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def images(self) -> np.ndarray:
        """The frames for OpenCV's networks: uint8 RGB (T, H, W, 3) in main memory."""
        return self.once("images", lambda: np.ascontiguousarray(self.frames.permute(0, 2, 3, 1).cpu().numpy()))

    def floats(self, start: int, stop: int) -> Tensor:
        """Frames ``start`` up to ``stop`` for torch's networks: float32 in [-1, 1]."""
        return self.frames[start:stop].float() / 127.5 - 1

    def once(self, what: Hashable, compute: Callable[[], T]) -> T:
        """``compute()``, cached under ``what``: everything the result depends on, such as the network itself."""
        if what not in self._cache:
            self._cache[what] = compute()
        return self._cache[what]


def check_clips(output: Tensor, target: Tensor) -> None:
    """Raise UserError unless both are uint8 (T, 3, H, W) of one shape with T ≥ 1."""
    if output.shape != target.shape:
        raise UserError(
            f"output and ground truth differ in shape: {tuple(output.shape)} and {tuple(target.shape)} (T, 3, H, W)"
        )
    if output.ndim != 4 or output.shape[1] != 3 or output.dtype != torch.uint8 or target.dtype != torch.uint8:
        raise UserError(f"metrics take uint8 clips (T, 3, H, W), not {output.dtype} {tuple(output.shape)}")
    if not len(output):
        raise UserError("metrics take clips of at least one frame")


class Metric(ABC):
    """One column of the table: a value per frame, and a score per clip.

    Attributes:
        name: of the column; it includes the network, if any. Different networks never share a column.
        higher_is_better: whether a higher score is better.
        first: the first frame that has a value; 1 for a metric of neighbouring frames, where ``values[t]`` compares
            frames t - 1 and t, and ``values[0]`` is NaN.
        needs_truth: whether it compares with the ground truth; False for a metric that can be measured without one.
        per_frame: whether the values of frames are shown; False for a σ, whose values are another metric's.
        factor: tables show the score times this: 100 where the paper writes (×10⁻²). Files hold the score itself.
        decimals: number of decimals in tables.
        files: the weight files it was loaded from; its parts (networks, detectors) have their own ``files``. A
            benchmark measures again when one of them changes.
    """

    name: str
    higher_is_better: bool
    first: int = 0
    needs_truth: bool = True
    per_frame: bool = True
    factor: float = 1
    decimals: int = 4
    files: tuple[Path, ...] = ()

    def __call__(self, output: Clip | Tensor, target: Clip | Tensor) -> np.ndarray:
        """One value per frame, float64 (T,); NaN for a frame without a value (no face; no frame before it).

        Args:
            output: uint8 RGB (T, 3, H, W), or a :class:`Clip` of it.
            target: the ground truth, likewise; a Clip that is used again saves its half of the work.

        Raises:
            UserError: this clip cannot be measured; the message gives the reason.
        """
        output = output if isinstance(output, Clip) else Clip(output, "output")
        target = target if isinstance(target, Clip) else Clip(target, "ground truth")
        check_clips(output.frames, target.frames)
        with torch.no_grad(), torch.autocast(output.frames.device.type, enabled=False):
            return output.once((self, target), lambda: self._measured(output, target))

    def _measured(self, output: Clip, target: Clip) -> np.ndarray:
        """:meth:`measure`, its result checked: the class may be a user's own."""
        values = self.measure(output, target)
        if not isinstance(values, np.ndarray) or values.shape != (len(output),) or values.dtype.kind != "f":
            found = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
            raise UserError(f"metric {self.name}: measure returned {found}, expected float64 ({len(output)},)")
        return values

    @abstractmethod
    def measure(self, output: Clip, target: Clip) -> np.ndarray:
        """Same as ``__call__``, on clips of equal shape."""

    def describe(self) -> str:
        """The protocol in one line, for the report."""
        return summary(type(self))

    def score(self, values: np.ndarray) -> float:
        """The score of the clip: the mean over the frames that have a value; NaN if none has."""
        valid = values[~np.isnan(values)]
        return float(valid.mean()) if len(valid) else float("nan")

    def missing(self, values: np.ndarray) -> int:
        """Number of frames that should have a value but have none."""
        return int(np.isnan(values[self.first :]).sum())


class SetMetric(ABC):
    """One column of the table with a single value for a set of clips, and none for a clip.

    Attributes:
        name, higher_is_better, needs_truth, factor, decimals, files: as in :class:`Metric`.
    """

    name: str
    higher_is_better: bool
    needs_truth: bool = True
    factor: float = 1
    decimals: int = 4
    files: tuple[Path, ...] = ()

    def describe(self) -> str:
        """The protocol in one line, for the report."""
        return summary(type(self))

    @abstractmethod
    def samples(self, clip: Clip) -> np.ndarray:
        """Samples of a clip (output or ground truth), float64 (n, D); n may be 0."""

    @abstractmethod
    def value(self, outputs: Sequence[np.ndarray], targets: Sequence[np.ndarray]) -> float:
        """The value for the samples of all clips.

        Raises:
            UserError: there are too few samples.
        """


def build_metrics(specs: Sequence[Spec]) -> list[Any]:
    """Build the metrics; a network, detector or metric that several of them use with the same options is built once.

    Metrics that share it also share its results, which :meth:`Clip.once` caches.

    Raises:
        UserError: a metric cannot be built (a missing file or package), or two have the same name.
    """
    built: dict[str, Any] = {}

    def make(value: Any) -> Any:
        if isinstance(value, Spec):
            key = json.dumps([value.cls.__qualname__, dump(value)], sort_keys=True)
            if key not in built:
                built[key] = value.cls(**{k: make_at(k, v) for k, v in value.options.items()})
            return built[key]
        return type(value)(make_at(*i) for i in enumerate(value)) if isinstance(value, list | tuple) else value

    def make_at(name: str | int, value: Any) -> Any:
        with placed(name):
            return make(value)

    metrics = [make_at(f"metrics.{i}", spec) for i, spec in enumerate(specs)]
    twice = [name for name, n in Counter(m.name for m in metrics).items() if n > 1]
    if twice:
        raise UserError(f"metrics: two columns are named {twice[0]}; names must be unique")
    return metrics
