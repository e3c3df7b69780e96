"""Compares an exported step with the network that it came from."""

import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from keep.archs.keep import KEEP
from keep.inference.exported.backends import Backend, Inductor, OnnxRuntime
from keep.inference.exported.network import Stepper
from keep.inference.streaming import Streamer

FRAMES = 4


@dataclass(frozen=True)
class Difference:
    """Of an exported step to PyTorch over a clip.

    Attributes:
        frames: number of frames.
        output: largest difference of the restored frames, whose range is [-1, 1].
        gain: largest difference of the gains.
        codes: number of codes that differ.
    """

    frames: int
    output: float
    gain: float
    codes: int

    def small(self, dtype: str) -> bool:
        """Whether the step computes the same: with float32 the same codes, and frames that differ by 1e-3 at most;
        with other types finite frames."""
        exact = self.codes == 0 and self.output <= 1e-3
        return exact if dtype == "float32" else math.isfinite(self.output)

    def __str__(self) -> str:
        codes = f"{self.codes} codes differ" if self.codes else "the same codes"
        return f"{self.frames} frames with PyTorch: {codes}, largest difference {self.output:.1e}"


def compare(net: KEEP, path: Path) -> Difference | str:
    """Compare a written file with its network over a few drawn frames; a reason, if its runtime is not installed."""
    if path.suffix == ".onnx" and importlib.util.find_spec("onnxruntime") is None:
        return "not with PyTorch: onnxruntime is not installed (pip install keep-vfsr[export])"
    backend = OnnxRuntime(path) if path.suffix == ".onnx" else Inductor(path)
    size = net.image_size
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 12, 12, generator=generator) * 2 - 1
    picture = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    lq = torch.stack([picture.roll(t, -1) for t in range(FRAMES)], dim=1)
    flows = torch.zeros(1, FRAMES - 1, 2, size, size)
    flows[:, :, 0] = -1
    return difference(net, backend, lq, flows)


@torch.no_grad()
def difference(net: KEEP, backend: Backend, lq: Tensor, flows: Tensor | None = None) -> Difference:
    """Restore a clip by both, from its first frame on.

    Args:
        net: the network, on the CPU.
        backend: the exported step.
        lq: (B, T, 3, S, S) in [-1, 1].
        flows: (B, T - 1, 2, S, S) in pixels; not used by a step that estimates its flow.
    """
    if not backend.manifest.takes_flow:
        flows = None
    chosen: list[Tensor] = []
    hook = net.code_transformer.register_forward_hook(lambda _module, _args, logits: chosen.append(logits.argmax(-1)))
    expected = Streamer(net).push(lq, flows)
    hook.remove()
    step, output, gain, codes = Stepper(backend), 0.0, 0.0, 0
    for t, frame in enumerate(expected):
        flow = None if flows is None or t == 0 else flows[:, t - 1].numpy()
        found = step(lq[:, t].numpy(), flow)
        output = max(output, largest(found["restored"] - frame.output.numpy()))
        gain = max(gain, largest(found["gain"] - frame.gain.numpy()) if t else 0.0)
        codes += int((found["chosen"] != chosen[t].numpy()).sum())
    return Difference(lq.shape[1], output, gain, codes)


def largest(values: np.ndarray) -> float:
    """The largest absolute value; infinite if one is not a number."""
    return float(np.nan_to_num(np.abs(values), nan=np.inf, posinf=np.inf).max())
