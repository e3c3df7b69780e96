"""Build a TensorRT engine from a file of ``keep.export``, compare it with PyTorch, and time both on a GPU.

    python -m keep.export -w lite -o lite.onnx
    python -m scripts.tensorrt_engine lite.onnx lite.engine -w lite --batch 4 --fp16

It needs an NVIDIA GPU and the package ``tensorrt`` (``pip install tensorrt``, 10 or later). It was written without a
GPU and has not been run yet. An engine fits one kind of card and one version of TensorRT: build it where it runs.
"""  # fmt: skip

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from keep.config import arguments
from keep.config.cli import Parser, run
from keep.inference.exported.backends import Arrays, read_manifest
from keep.inference.exported.check import difference
from keep.inference.exported.manifest import Manifest
from keep.inference.streaming import Streamer
from keep.inference.weights import load_keep
from keep.utils.errors import UserError
from keep.utils.io import write_file
from scripts.bench.common import moving_clip

FRAMES = 20
"""Frames of the drawn clip that both restore."""


def build_engine(path: Path, manifest: Manifest, batch: int, fp16: bool) -> bytes:
    """The serialised engine, for batches of 1 to ``batch`` clips.

    Raises:
        UserError: TensorRT is not installed, or cannot build the graph.
    """
    trt = _tensorrt()
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(path.read_bytes()):
        raise UserError(f"{path}: TensorRT cannot read it: {parser.get_error(0).desc()}")
    config = builder.create_builder_config()
    if fp16:
        config.set_flag(trt.BuilderFlag.FP16)
    profile = builder.create_optimization_profile()
    for port in manifest.inputs:
        if -1 in port.shape:
            profile.set_shape(port.name, *(port.sized(n) for n in (1, batch, batch)))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise UserError(f"{path}: TensorRT could not build an engine; its messages above say why")
    return bytes(engine)


class TensorRT:
    """An engine as a :class:`keep.inference.exported.Backend`; states are copied to the host after every frame.

    Args:
        engine: the serialised engine.
        manifest: of the file that it was built from.
    """

    def __init__(self, engine: bytes, manifest: Manifest) -> None:
        trt = _tensorrt()
        self.manifest = manifest
        self._engine = trt.Runtime(trt.Logger(trt.Logger.WARNING)).deserialize_cuda_engine(engine)
        self._context = self._engine.create_execution_context()

    def __call__(self, inputs: Arrays) -> dict[str, np.ndarray]:
        given = {name: torch.from_numpy(np.ascontiguousarray(value)).cuda() for name, value in inputs.items()}
        return {name: value.cpu().numpy() for name, value in self.on_device(given).items()}

    def on_device(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The same for tensors that stay on the GPU."""
        batch = len(inputs["frame"])
        outputs = {port.name: port.tensor(batch).cuda() for port in self.manifest.outputs}
        for name, tensor in inputs.items():
            self._context.set_input_shape(name, tuple(tensor.shape))
        for name, tensor in {**inputs, **outputs}.items():
            self._context.set_tensor_address(name, tensor.data_ptr())
        stream = torch.cuda.current_stream()
        if not self._context.execute_async_v3(stream.cuda_stream):
            raise RuntimeError("TensorRT could not run the engine")
        stream.synchronize()
        return outputs


def _tensorrt() -> Any:
    try:
        import tensorrt
    except ImportError as error:
        raise UserError("TensorRT is not installed: pip install tensorrt (NVIDIA GPUs only)") from error
    return tensorrt


def frames_a_second(backend: TensorRT, batch: int) -> float:
    """With the states on the GPU, the best of three rounds after one to warm up."""
    states = {port.name: port.tensor(batch).cuda() for port in backend.manifest.inputs}
    states["fidelity"] += 1
    best = 0.0
    for _ in range(4):
        start = time.perf_counter()
        for _ in range(FRAMES):
            found = backend.on_device(states)
            states |= {port.name: found[following] for port, following in backend.manifest.states}
        best = max(best, batch * FRAMES / (time.perf_counter() - start))
    return best


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    _tensorrt()
    if not torch.cuda.is_available():
        raise UserError("TensorRT needs an NVIDIA GPU, and PyTorch finds none")
    manifest = read_manifest(args.onnx)
    engine = build_engine(args.onnx, manifest, args.batch, args.fp16)
    write_file(args.engine, engine)
    backend = TensorRT(engine, manifest)
    net, lq = load_keep(args.weights), moving_clip(1, FRAMES, manifest.image_size)
    print(f"parity   {difference(net, backend, lq, net.estimate_flows(lq) if manifest.takes_flow else None)}")
    print(f"TensorRT {frames_a_second(backend, args.batch):.1f} frames/s, {args.batch} clips side by side")
    fast, clips = net.cuda(), moving_clip(args.batch, FRAMES, manifest.image_size).cuda()
    flows = torch.zeros(args.batch, FRAMES - 1, 2, *clips.shape[-2:], device="cuda") if manifest.takes_flow else None
    for _ in range(2):
        torch.cuda.synchronize()
        start = time.perf_counter()
        Streamer(fast).push(clips, flows)
        torch.cuda.synchronize()
    print(f"PyTorch  {args.batch * FRAMES / (time.perf_counter() - start):.1f} frames/s, float32, eager")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = Parser(prog="scripts.tensorrt_engine", description="Build, compare and time a TensorRT engine.")
    p.add_argument("onnx", type=Path, help="a file of keep.export")
    p.add_argument("engine", type=Path, help="the engine to write")
    p.add_argument("-w", "--weights", required=True, help="the weights that were exported")
    p.add_argument("--batch", type=arguments.whole(1, 64), default=4, help="most clips side by side (4)")
    p.add_argument("--fp16", action="store_true", help="let TensorRT compute in float16")
    return p.parse_args(argv)


if __name__ == "__main__":
    sys.exit(run(main))
