"""A function of tensors as a CUDA graph: its kernels start together, without the gaps between single launches."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

GRAPHS_KEPT = 4
"""Graphs of one function that are kept. Each holds its inputs, its outputs and the function's activations."""
WARM_UP = 3
"""Calls before the capture: libraries choose their algorithms and allocate their workspaces there."""

TensorFunction = Callable[..., Sequence[Tensor]]
"""Takes and returns tensors. It must not wait for the device; its shapes depend on those of its arguments alone."""


class Captured(NamedTuple):
    """A captured call: fill ``inputs``, call ``replay``, read ``outputs``."""

    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    replay: Callable[[], Any]


class Capture(Protocol):
    """Records a call of a function on tensors like ``inputs``."""

    def __call__(self, function: TensorFunction, inputs: Sequence[Tensor]) -> Captured: ...


def capture_cuda(function: TensorFunction, inputs: Sequence[Tensor]) -> Captured:
    """Record a call as a CUDA graph.

    Memory is recorded too: the graph reads and writes the same addresses at each replay. Other threads may use the
    device meanwhile.
    """
    device = inputs[0].device
    static = [x.clone() for x in inputs]
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            function(*static)
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = function(*static)
    return Captured(static, outputs, graph.replay)


class GraphCache:
    """Calls functions through captured graphs, one for each key, shape, dtype and device. For inference only.

    Returned tensors are copies: the next replay does not change them. A copy or a pickle of the cache starts empty.

    Args:
        capture: records a call.
        device_type: where functions are captured; on other devices they are called.
    """

    def __init__(self, capture: Capture = capture_cuda, device_type: str = "cuda") -> None:
        self.capture, self.device_type = capture, device_type
        self._graphs: dict[Hashable, Captured] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_graphs": {}}

    def __len__(self) -> int:
        return len(self._graphs)

    def clear(self) -> None:
        """Forget all graphs: the weights that they read have moved."""
        self._graphs.clear()

    def __call__(self, function: TensorFunction, inputs: Sequence[Tensor], key: Hashable) -> list[Tensor]:
        """``function(*inputs)``.

        Args:
            function: see :data:`TensorFunction`.
            inputs: its arguments.
            key: everything else that its result depends on.
        """
        if inputs[0].device.type != self.device_type:
            return list(function(*inputs))
        key = (key, *((x.shape, x.dtype, x.device) for x in inputs))
        found = self._graphs.pop(key, None)
        if found is None:
            while len(self._graphs) >= GRAPHS_KEPT:
                del self._graphs[next(iter(self._graphs))]
            with torch.inference_mode(False), torch.no_grad():  # a replay outside of inference mode fills them too
                found = self.capture(function, inputs)
        self._graphs[key] = found  # the last used one is the last to be dropped
        for static, x in zip(found.inputs, inputs, strict=True):
            static.copy_(x)
        found.replay()
        return [x.clone() for x in found.outputs]
