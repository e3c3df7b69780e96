"""The interface between the pipeline and a network: recurrences over aligned crops."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from keep.archs.confidence import ErrorBands
from keep.data.frames import to_float, to_uint8
from keep.inference.api import Restorer
from keep.inference.streaming import WINDOW, Streamer

Recurrence = Callable[[np.ndarray], np.ndarray]
"""Restores the next n frames of B clips: uint8 (n, B, S, S, 3) RGB → the same shape. Keeps state between calls."""


@dataclass(frozen=True)
class Judged:
    """What the error model says of one restored face, on blocks of 8×8 pixels, float32 (S/8, S/8).

    Attributes:
        error: expected mean error of luma, in grey levels of 255.
        high: upper end of its interval.
        confidence: probability that the block shows what was there, 0 to 1.
    """

    error: np.ndarray
    high: np.ndarray
    confidence: np.ndarray


class Network(Protocol):
    """A restorer of aligned faces.

    Attributes:
        size: side S of its crops, in pixels.
        window: best number of frames for one call.
    """

    size: int
    window: int

    def begin(self) -> Recurrence:
        """A new recurrence without state."""
        ...


class KeepNetwork:
    """:class:`Network` of a loaded KEEP; every recurrence is a :class:`keep.inference.streaming.Streamer`."""

    def __init__(self, restorer: Restorer) -> None:
        self.net = restorer.net
        self.size = self.net.image_size
        self.options = dict(restorer.options)
        self.window = self.options.pop("window", WINDOW)
        self.fidelity = self.options.get("w", 1.0)

    def with_fidelity(self, w: float) -> "KeepNetwork":
        """The same network with a different weight w of CFT."""
        return KeepNetwork(Restorer(self.net, **{**self.options, "window": self.window, "w": w}))

    def begin(self) -> Recurrence:
        return KeepRecurrence(self)


class KeepRecurrence:
    """A :data:`Recurrence` of KEEP.

    Attributes:
        judged: for each frame and face of the last call, what the error model says; None without one.
    """

    def __init__(self, network: KeepNetwork) -> None:
        self.streamer = Streamer(network.net, **network.options)
        self.device = network.net.codebook.embedding.weight.device
        self.judged: list[list[Judged]] | None = None

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(crops).to(self.device).permute(1, 0, 4, 2, 3)
        steps = self.streamer.push(to_float(x))
        bands = [step.bands for step in steps if step.bands is not None]
        self.judged = [judged(b) for b in bands] if bands else None
        return torch.stack([to_uint8(step.output) for step in steps]).permute(0, 1, 3, 4, 2).cpu().numpy()


def judged(bands: ErrorBands) -> list[Judged]:
    """What the error model says of each face of a frame."""
    middle, high, confidence = (x.float().cpu().numpy() for x in (bands.middle, bands.high, bands.confidence()))
    return [Judged(middle[i, 0], high[i, 0], confidence[i, 0]) for i in range(len(middle))]
