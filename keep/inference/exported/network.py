"""Restore clips by an exported step: the states, the flow, and the interface of the video pipeline."""

import numpy as np
import torch
from torch import nn

from keep.config.registry import FLOWS
from keep.inference.exported.backends import Backend
from keep.inference.streaming import WINDOW
from keep.inference.video.network import Recurrence
from keep.utils.errors import UserError
from keep.utils.validation import checked


class Stepper:
    """Carries the states of a batch of clips from frame to frame.

    Args:
        backend: the exported step.
        flow: estimates the flow, if the step takes it as an input.
        fidelity: weight w of CFT, 0 to 1.
    """

    def __init__(self, backend: Backend, flow: nn.Module | None = None, fidelity: float = 1.0) -> None:
        self.backend, self.flow, self.fidelity = backend, flow, np.asarray(fidelity, np.float32)
        self._states: dict[str, np.ndarray] | None = None
        self._last: np.ndarray | None = None

    def __call__(self, frame: np.ndarray, flow: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Restore the next frame.

        Args:
            frame: (B, 3, S, S) float32 in [-1, 1].
            flow: its flow to the frame before, (B, 2, S, S) float32 in pixels. None: estimated.

        Returns:
            the outputs by name: ``restored``, ``gain``, ``chosen`` (the codes), and the next states.
        """
        manifest, batch = self.backend.manifest, len(frame)
        if self._states is None:
            self._states = {port.name: port.zeros(batch) for port, _ in manifest.states}
        inputs = {"frame": frame, "fidelity": self.fidelity, **self._states}
        if manifest.takes_flow:
            inputs["flow"] = self._flow(frame) if flow is None else flow
        found = self.backend(inputs)
        self._states = {port.name: found[following] for port, following in manifest.states}
        self._last = frame
        return found

    def _flow(self, frame: np.ndarray) -> np.ndarray:
        if self._last is None:  # a clip's first frame has none; the graph does not use it
            return np.zeros((len(frame), 2, *frame.shape[2:]), np.float32)
        if self.flow is None:
            raise UserError("this exported network takes the flow as an input, and there is no flow estimator")
        with torch.no_grad():
            return self.flow(torch.from_numpy(frame), torch.from_numpy(self._last)).numpy()


class ExportedNetwork:
    """:class:`keep.inference.video.network.Network` of an exported step.

    Args:
        backend: the exported step.
        fidelity: weight w of CFT.
        window: frames of one call.

    Raises:
        UserError: the flow is an input, and its estimator cannot be built.
    """

    def __init__(self, backend: Backend, fidelity: float = 1.0, window: int = WINDOW) -> None:
        self.backend, self.fidelity, self.window = backend, fidelity, window
        self.size = backend.manifest.image_size
        self.flow = _estimator(backend) if backend.manifest.takes_flow else None

    def with_fidelity(self, w: float) -> "ExportedNetwork":
        """The same network with a different weight w of CFT."""
        return ExportedNetwork(self.backend, w, self.window)

    def begin(self) -> Recurrence:
        step = Stepper(self.backend, self.flow, self.fidelity)

        def restore(crops: np.ndarray) -> np.ndarray:
            frames = crops.transpose(0, 1, 4, 2, 3).astype(np.float32) / 127.5 - 1
            restored = np.stack([step(np.ascontiguousarray(frame))["restored"] for frame in frames])
            return ((restored + 1) * 127.5).round().clip(0, 255).astype(np.uint8).transpose(0, 1, 3, 4, 2)

        return restore


def _estimator(backend: Backend) -> nn.Module:
    flow = backend.manifest.flow
    if flow is None:
        raise UserError("this exported network takes the flow as an input and names no estimator for it")
    with checked("flow"):
        return FLOWS.spec(flow).build().eval()
