"""Run an exported step: ONNX Runtime, OpenVINO, AOTInductor."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from keep.inference.exported.manifest import KEY, Manifest
from keep.utils.errors import UserError, last_line, reported

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
        device: ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UserError: a missing package, CUDA that does not start, or a file that ``keep.export`` did not write.
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
        chosen = (provider, {"device_id": device.partition(":")[2] or "0"} if device.startswith("cuda") else {})
        self._session: Any
        with reported(f"{path}: ONNX Runtime cannot load it"):
            self._session = onnxruntime.InferenceSession(str(path), options, providers=[chosen])
        if provider not in self._session.get_providers():  # it goes on with the CPU
            raise UserError(f"ONNX Runtime cannot start CUDA on {device}: check the driver and the device's number")
        self.manifest = Manifest.from_json(self._session.get_modelmeta().custom_metadata_map.get(KEY), Path(path))

    def __call__(self, inputs: Arrays) -> dict[str, np.ndarray]:
        names = [port.name for port in self.manifest.outputs]
        with reported("ONNX Runtime cannot run the export"):
            found = self._session.run(names, dict(inputs))
        return dict(zip(names, found, strict=True))


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
        with reported(f"{self._path}: OpenVINO cannot run it", last_line):
            found = self._requests[batch].infer(dict(inputs))
        return {port.name: found[port.name].copy() for port in self.manifest.outputs}

    def _compile(self, batch: int) -> Any:
        with reported(f"{self._path}: OpenVINO cannot compile it", last_line):
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
        with reported(f"{path}: PyTorch cannot load it"):
            self._model = torch._inductor.aoti_load_package(str(path))
        self.manifest = Manifest.from_json(self._model.get_metadata().get(KEY), Path(path))

    @torch.no_grad()
    def __call__(self, inputs: Arrays) -> dict[str, np.ndarray]:
        given = [torch.from_numpy(np.ascontiguousarray(inputs[port.name])) for port in self.manifest.inputs]
        with reported("AOTInductor cannot run the export"):
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
    with reported(f"{path}: not an ONNX file"):
        model = onnx.load(str(path), load_external_data=False)
    return Manifest.from_json({entry.key: entry.value for entry in model.metadata_props}.get(KEY), Path(path))
