"""An exported step in int8: its convolutions, calibrated on a clip, for ONNX Runtime and OpenVINO."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from torch import Tensor

from keep.inference.exported import OnnxRuntime, Stepper
from keep.inference.exported.manifest import KEY

FLOAT = ("kalman_filter", "idx_pred_layer")
"""Parts that stay float32: what decides the gain and the codes."""


def quantize(source: Path, target: Path, lq: Tensor, flows: Tensor) -> None:
    """Write ``source`` with int8 weights and activations of its convolutions (QDQ).

    Args:
        source: a float32 file of ``keep.export``, with the flow as an input.
        target: the file to write.
        lq: frames for the calibration, (T, 3, S, S) in [-1, 1].
        flows: their flows, (T, 2, S, S).
    """
    from onnxruntime import quantization

    graph = onnx.load(source).graph
    kept = [node.name for node in graph.node if any(part in node.name for part in FLOAT)]
    reader: Any = Inputs(source, lq, flows)
    quantization.quantize_static(
        source, target, reader, op_types_to_quantize=["Conv"], per_channel=True,
        quant_format=quantization.QuantFormat.QDQ, nodes_to_exclude=kept,
    )  # fmt: skip
    model = onnx.load(target)
    if KEY not in {entry.key for entry in model.metadata_props}:
        described = {entry.key: entry.value for entry in onnx.load(source).metadata_props}
        onnx.helper.set_model_props(model, described)
        onnx.save(model, target)


class Inputs:
    """The inputs of every frame of a clip, as the float32 step sees them, for ONNX Runtime's calibration."""

    def __init__(self, source: Path, lq: Tensor, flows: Tensor) -> None:
        self._recorded = recorded = list[dict[str, np.ndarray]]()
        backend = OnnxRuntime(source)

        class Recording:
            manifest = backend.manifest

            def __call__(self, inputs: Any) -> dict[str, np.ndarray]:
                recorded.append(dict(inputs))
                return backend(inputs)

        step = Stepper(Recording())
        for frame, flow in zip(lq.split(1), flows.split(1), strict=True):
            step(frame.numpy(), flow.numpy())
        self._left: Iterator[dict[str, np.ndarray]] = iter(self._recorded[1:])  # the first has no state yet

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)
