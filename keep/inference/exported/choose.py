"""The exported network that ``keep.restore --backend`` names: a file, or weights that are exported once and kept."""

import hashlib
from pathlib import Path
from typing import Literal

import torch

import keep
from keep.inference.exported.backends import Backend, OnnxRuntime, OpenVINO
from keep.inference.exported.network import ExportedNetwork
from keep.inference.exported.write import export
from keep.inference.weights import find, load_keep
from keep.utils.downloads import cache_folder
from keep.utils.dtypes import has_bfloat16, parse_dtype
from keep.utils.errors import UserError
from keep.utils.logging import log
from keep.utils.paths import expand

BackendName = Literal["pytorch", "onnx", "openvino"]


def exported_network(
    name: BackendName,
    weights: str | Path,
    *,
    device: str = "cpu",
    dtype: str = "auto",
    threads: int = 0,
    fidelity: float = 1.0,
    window: int = 8,
) -> ExportedNetwork:
    """The network for a backend other than PyTorch.

    Args:
        name: ``onnx`` or ``openvino``.
        weights: an ``.onnx`` file that ``keep.export`` wrote, or weights as for restoring. Those are exported into the
            folder ``exported`` of the cache, once for each content of the file, dtype and version.
        device: ``auto``, ``cpu`` or, for ONNX Runtime, ``cuda``.
        dtype: ``auto`` or ``float32``; ``fp16``: export in float16; ``bf16``, of OpenVINO: compute in bfloat16.
        threads: CPU threads; 0: chosen by the library.
        fidelity: weight w of CFT.
        window: frames of one call.

    Raises:
        UserError: a missing package, no such file, a device or dtype that the backend does not have.
    """
    on_cuda = device.startswith("cuda")
    if on_cuda and name == "openvino":
        raise UserError("--backend openvino runs on the CPU: use --device cpu, or --backend onnx")
    kind = torch.float32 if dtype == "auto" else parse_dtype(dtype)
    if kind == torch.bfloat16 and (name == "onnx" or not has_bfloat16(torch.device("cpu"))):
        raise UserError("--dtype bf16 needs --backend openvino, on a processor with bfloat16 instructions")
    path = expand(weights)
    if path.suffix != ".onnx":
        path = _kept(weights, torch.float16 if kind == torch.float16 else torch.float32)
    elif not path.is_file():
        raise UserError(f"there is no file {path}")
    backend: Backend
    if name == "onnx":
        backend = OnnxRuntime(path, threads, device)
    else:
        backend = OpenVINO(path, threads, "bf16" if kind == torch.bfloat16 else "f32")
    written = backend.manifest.dtype
    if dtype != "auto" and (kind == torch.float16) != (written == "float16"):
        raise UserError(
            f"{path} computes in {written}, not {dtype}: leave out --dtype, or export it with --dtype {dtype}"
        )
    return ExportedNetwork(backend, fidelity, window)


def _kept(weights: str | Path, dtype: torch.dtype) -> Path:
    """The export of these weights in the cache; written if it is not there."""
    source = find(weights)
    parts = [source.read_bytes(), keep.__version__.encode(), str(dtype).encode(), torch.__version__.encode()]
    key = hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]
    path = cache_folder() / "exported" / f"{source.stem}-{key}.onnx"
    if not path.is_file():
        log.info(f"exporting {source.name} as ONNX, once: {path}")
        path.parent.mkdir(parents=True, exist_ok=True)
        export(load_keep(source), path, dtype, weights=source.name)
    return path
