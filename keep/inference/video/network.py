"""The interface between the pipeline and a network: recurrences over aligned crops."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from keep.data.frames import to_float, to_uint8
from keep.inference.api import Restorer
from keep.inference.streaming import WINDOW, Streamer

Recurrence = Callable[[np.ndarray], np.ndarray]
"""Restores the next n frames of B clips: uint8 (n, B, S, S, 3) RGB → the same shape. Keeps state between calls."""


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

    def with_fidelity(self, w: float) -> "KeepNetwork":
        """The same network with a different weight w of CFT."""
        return KeepNetwork(Restorer(self.net, **{**self.options, "window": self.window, "w": w}))

    def begin(self) -> Recurrence:
        streamer = Streamer(self.net, **self.options)
        device = self.net.codebook.embedding.weight.device

        def restore(crops: np.ndarray) -> np.ndarray:
            x = torch.from_numpy(crops).to(device).permute(1, 0, 4, 2, 3)
            frames = [to_uint8(step.output) for step in streamer.push(to_float(x))]
            return torch.stack(frames).permute(0, 1, 3, 4, 2).cpu().numpy()

        return restore
