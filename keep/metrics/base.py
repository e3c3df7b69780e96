"""What every metric is made of: clips that remember what was computed from them, and one base class a kind."""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from keep.config.registry import Spec, dump, summary
from keep.utils.errors import UserError

T = TypeVar("T")


class Clip:
    """Frames, and what was computed from them: faces, embeddings, flow, … each once, for all metrics and restorers.

    Args:
        frames: uint8 RGB (T, 3, H, W).
        name: for messages, e.g. ``ground truth``.
    """

    def __init__(self, frames: Tensor, name: str = "clip") -> None:
        self.frames = frames
        self.name = name
        self._known: dict[Hashable, Any] = {}

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
        """``compute()``, remembered under ``what``: the network itself, not its name, and all that the result needs."""
        if what not in self._known:
            self._known[what] = compute()
        return self._known[what]


def check_clips(output: Tensor, target: Tensor) -> None:
    """Both uint8 (T, 3, H, W), of one shape and with a frame at least, or a UserError."""
    if output.shape != target.shape:
        raise UserError(
            f"output and ground truth differ in shape: {tuple(output.shape)} and {tuple(target.shape)} (T, 3, H, W)"
        )
    if output.ndim != 4 or output.shape[1] != 3 or output.dtype != torch.uint8 or target.dtype != torch.uint8:
        raise UserError(f"metrics take uint8 clips (T, 3, H, W), not {output.dtype} {tuple(output.shape)}")
    if not len(output):
        raise UserError("metrics take clips of at least one frame")


class Metric(ABC):
    """One column of the table: values of a clip's frames, and the clip's score.

    Attributes:
        name: of the column; it names the network, where there is one. Different networks never share a column.
        higher_is_better: which way is up.
        first: the first frame that has a value; 1 for a metric of neighbouring frames, whose ``values[t]`` is of frames
            t - 1 and t, and whose ``values[0]`` is NaN.
        per_frame: whether the frames' values are worth showing; False for a σ, whose frames are another metric's.
        factor: tables show the score times this: 100 where the paper writes (×10⁻²). Files hold the score itself.
        decimals: of what tables show.
    """

    name: str
    higher_is_better: bool
    first: int = 0
    per_frame: bool = True
    factor: float = 1
    decimals: int = 4

    def __call__(self, output: Clip | Tensor, target: Clip | Tensor) -> np.ndarray:
        """The frames' values: float64 (T,); NaN for a frame that has none (no face; no frame before it).

        Args:
            output: uint8 RGB (T, 3, H, W), or a :class:`Clip` of it.
            target: the same of the ground truth; a Clip that is used again spares its half of the work.

        Raises:
            UserError: nothing can be measured in this clip; the message says why.
        """
        output = output if isinstance(output, Clip) else Clip(output, "output")
        target = target if isinstance(target, Clip) else Clip(target, "ground truth")
        check_clips(output.frames, target.frames)
        with torch.no_grad(), torch.autocast(output.frames.device.type, enabled=False):
            return output.once((self, target), lambda: self.measure(output, target))

    @abstractmethod
    def measure(self, output: Clip, target: Clip) -> np.ndarray:
        """As ``__call__``, on clips of equal shape."""

    def describe(self) -> str:
        """The protocol in a line, for the report."""
        return summary(type(self))

    def score(self, values: np.ndarray) -> float:
        """The clip's score: the mean over the frames that have a value; NaN where none has."""
        there = values[~np.isnan(values)]
        return float(there.mean()) if len(there) else float("nan")

    def missing(self, values: np.ndarray) -> int:
        """How many frames should have a value and have none."""
        return int(np.isnan(values[self.first :]).sum())


class SetMetric(ABC):
    """One column of the table that has a value for a whole set of clips only, and none for a clip.

    Attributes:
        name, higher_is_better, factor, decimals: as in :class:`Metric`.
    """

    name: str
    higher_is_better: bool
    factor: float = 1
    decimals: int = 4

    def describe(self) -> str:
        """The protocol in a line, for the report."""
        return summary(type(self))

    @abstractmethod
    def samples(self, clip: Clip) -> np.ndarray:
        """What is kept of a clip, output or ground truth: float64 (n, D), n samples; n may be 0."""

    @abstractmethod
    def value(self, outputs: Sequence[np.ndarray], targets: Sequence[np.ndarray]) -> float:
        """The value for all clips' samples.

        Raises:
            UserError: there are too few of them.
        """


def build_metrics(specs: Sequence[Spec]) -> list[Any]:
    """The metrics; a network, detector or metric that several of them ask for with the same options is built once.

    So each metric that shares it finds its results in the clip (:meth:`Clip.once`).

    Raises:
        UserError: a metric cannot be built (a missing file or package), or two have one name.
    """
    built: dict[str, Any] = {}

    def make(value: Any) -> Any:
        if isinstance(value, Spec):
            key = json.dumps([value.cls.__qualname__, dump(value)], sort_keys=True)
            if key not in built:
                built[key] = value.cls(**{k: make(v) for k, v in value.options.items()})
            return built[key]
        return type(value)(make(v) for v in value) if isinstance(value, list | tuple) else value

    metrics = [make(spec) for spec in specs]
    twice = [name for name, n in Counter(m.name for m in metrics).items() if n > 1]
    if twice:
        raise UserError(f"metrics: {twice[0]} is there twice; every column needs a name of its own")
    return metrics
