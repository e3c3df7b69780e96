"""KEEP as a graph with its state, for ONNX Runtime, OpenVINO, TensorRT and AOTInductor; see docs/export.md."""

from keep.inference.exported.backends import Backend, Inductor, OnnxRuntime, OpenVINO
from keep.inference.exported.network import ExportedNetwork, Stepper
from keep.inference.exported.write import export

__all__ = ["Backend", "ExportedNetwork", "Inductor", "OnnxRuntime", "OpenVINO", "Stepper", "export"]
