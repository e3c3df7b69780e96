"""Run an exported step: ONNX Runtime, OpenVINO, AOTInductor."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from keep.inference.exported.manifest import KEY, Manifest
from keep.utils.errors import UserError

Arrays = Mapping[str, np.ndarray]


class Backend(Protocol):
    """An exported step in memory.

    Attributes:
        manifest: what its file says about it.
    """

    manifest: Manifest

    def __call__(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Inputs by name → outputs by name."""
        ...


class OnnxRuntime:
    """ONNX Runtime, on the CPU or on CUDA.

    Args:
        path: an ``.onnx`` file that ``keep.export`` wrote.
        threads: CPU threads; 0: chosen by ONNX Runtime.
        device: ``cpu`` or ``cuda``.

    Raises:
        UserError: a missing package, or a file that ``keep.export`` did not write.
    """

    def __init__(self, path: str | Path, threads: int = 0, device: str = "cpu") -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError("the backend onnx needs onnxruntime: pip install keep-vfsr[export]") from error
        provider = "CUDAExecutionProvider" if device.startswith("cuda") else "CPUExecutionProvider"
        if provider not in onnxruntime.get_available_providers():
            raise UserError("this onnxruntime has no CUDA: pip install onnxruntime-gpu, or use --device cpu")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session: Any
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
        except Exception as error:  # its errors have no common type
            raise UserError(f"{path}: ONNX Runtime cannot load it: {_first_line(error)}") from error
        self.manifest = Manifest.from_json(self._session.get_modelmeta().custom_metadata_map.get(KEY), Path(path))

    def __call__(self, inputs: Arrays) -> dict[str, np.ndarray]:
        names = [port.name for port in self.manifest.outputs]
        return dict(zip(names, self._session.run(names, dict(inputs)), strict=True))


class OpenVINO:
    """OpenVINO on the CPU. The graph is compiled for each size of batch: that is faster than a dynamic one.

    Args:
        path: an ``.onnx`` file that ``keep.export`` wrote.
        threads: CPU threads; 0: chosen by OpenVINO.
        dtype: ``f32``, or ``bf16``: what it may compute in.

    Raises:
        UserError: a missing package, or a file that ``keep.export`` did not write.
    """

    def __init__(self, path: str | Path, threads: int = 0, dtype: str = "f32") -> None:
        try:
            import openvino
        except ImportError as error:
            raise UserError("the backend openvino needs openvino: pip install keep-vfsr[openvino]") from error
        self.manifest = read_manifest(path)
        self._path, self._core = path, openvino.Core()
        self._options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": dtype}
        if threads:
            self._options["INFERENCE_NUM_THREADS"] = threads
        self._requests: dict[int, Any] = {}

    def __call__(self, inputs: Arrays) -> dict[str, np.ndarray]:
        batch = len(inputs["frame"])
        if batch not in self._requests:
            self._requests[batch] = self._compile(batch)
        found = self._requests[batch].infer(dict(inputs))
        return {port.name: found[port.name].copy() for port in self.manifest.outputs}

    def _compile(self, batch: int) -> Any:
        model = self._core.read_model(str(self._path))
        model.reshape({port.name: list(port.sized(batch)) for port in self.manifest.inputs})
        return self._core.compile_model(model, "CPU", self._options).create_infer_request()


class Inductor:
    """A library compiled by AOTInductor, for the kind of processor that exported it.

    Args:
        path: a ``.pt2`` file that ``keep.export`` wrote. It contains machine code: run no file of others.

    Raises:
        UserError: a file that PyTorch cannot load, or that ``keep.export`` did not write.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            self._model = torch._inductor.aoti_load_package(str(path))
        except Exception as error:  # RuntimeError, zipfile's errors
            raise UserError(f"{path}: PyTorch cannot load it: {_first_line(error)}") from error
        self.manifest = Manifest.from_json(self._model.get_metadata().get(KEY), Path(path))

    @torch.no_grad()
    def __call__(self, inputs: Arrays) -> dict[str, np.ndarray]:
        given = [torch.from_numpy(np.ascontiguousarray(inputs[port.name])) for port in self.manifest.inputs]
        found = self._model(*given)
        return {port.name: x.numpy() for port, x in zip(self.manifest.outputs, found, strict=True)}


def read_manifest(path: str | Path) -> Manifest:
    """What an ``.onnx`` file says about itself.

    Raises:
        UserError: a missing package, not an ONNX file, or one that ``keep.export`` did not write.
    """
    try:
        import onnx
    except ImportError as error:
        raise UserError("reading ONNX files needs onnx: pip install keep-vfsr[export]") from error
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's errors have no common type
        raise UserError(f"{path}: not an ONNX file: {_first_line(error)}") from error
    return Manifest.from_json({entry.key: entry.value for entry in model.metadata_props}.get(KEY), Path(path))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
