"""The Python API: load weights once, restore clips of aligned faces frame by frame.

    import keep
    restorer = keep.load_restorer()          # the small network in this package; "KEEP": the authors' network
    for frame in restorer.restore(frames): ...
"""  # fmt: skip

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from keep.archs.keep import KEEP
from keep.data.frames import to_float, to_uint8
from keep.inference.confidence import load_confidence
from keep.inference.fast import accelerate
from keep.inference.streaming import CONTEXT, WINDOW, RestoredFrame, stream
from keep.inference.weights import DEFAULT, Params, load_keep
from keep.utils.devices import pick_device
from keep.utils.dtypes import pick_dtype
from keep.utils.errors import UserError


def load_restorer(
    weights: str | Path = DEFAULT,
    device: str | torch.device = "auto",
    dtype: torch.dtype | str = torch.float32,
    *,
    params: Params = "ema",
    net: nn.Module | Mapping[str, Any] | None = None,
    flow: nn.Module | str | Mapping[str, Any] | None = None,
    cache: str | Path | None = None,
    window: int = WINDOW,
    context: int = CONTEXT,
    fidelity: float = 1.0,
    cft: bool = True,
    cfa: bool = True,
    fast: bool = True,
    compile: bool = False,
    confidence: bool = False,
    min_confidence: float = 0.0,
) -> "Restorer":
    """A restorer of clips of aligned faces.

    Args:
        weights: a weight file (``docs/weights.md``); ``lite`` or ``nano``, small networks in this package; ``KEEP``,
            ``KEEP_Asian`` or ``KEEP_v0.1.0``: the authors' files, downloaded once; or ``hf://ORG/NAME[@REVISION]``.
        device: ``auto`` (CUDA if available, else CPU), ``cpu``, ``cuda``, ``cuda:N``.
        dtype: ``float32``, ``bfloat16`` (``bf16``), ``float16`` (``fp16``), or ``auto``: bfloat16 where the device has
            instructions for it, else float32. Positions of the flow are always float32.
        params: averaged (``ema``) or ``online`` weights, if the file has both.
        net: the network, if the file does not store its options: a module, or ``{"type": "KEEP", …}``.
        flow: a flow estimator that replaces the file's: a module, or a name such as ``"dis"``.
        cache: folder of downloads; by default ``$KEEP_HOME`` or ``~/.cache/keep``.
        window: frames that are encoded at once; more is faster but needs more memory.
        context: number of earlier frames that determine a gain of a ``clip`` network
            (:class:`keep.inference.streaming.Streamer`).
        fidelity: weight w of CFT: 0 for most detail, from the codebook alone; 1 for the closest match to the input.
        cft: use the controllable feature transformation.
        cfa: use the cross-frame attention.
        fast: use :func:`keep.inference.fast.accelerate`; the result is the same up to rounding. False keeps the plain
            network, for training or saving.
        compile: ``torch.compile`` the sub-networks; needs ``fast``. The first clip then takes minutes.
        confidence: also predict the error of every block, by the error model of these weights:
            :meth:`Restorer.stream`, ``docs/confidence.md``.
        min_confidence: with it, go back to the input where a block is less likely than this to show what was there.

    Raises:
        UserError: no such file, device or dtype, the weights of another network, or weights without an error model.
    """
    device = pick_device(str(device))
    dtype = pick_dtype(dtype, device)
    network = load_keep(weights, params, flow, net=net, cache=None if cache is None else Path(cache)).to(device)
    options: dict[str, Any] = {"window": window, "context": context, "w": fidelity, "use_cft": cft, "use_cfa": cfa}
    if confidence or min_confidence:
        model = load_confidence(weights, params, None if cache is None else Path(cache))
        options |= {"confidence": model.to(device), "min_confidence": min_confidence}
    if fast:
        network = accelerate(network, dtype, compile=compile)
    elif compile:
        raise UserError("compile needs fast=True")
    else:
        cast(network, dtype)
    return Restorer(network, **options)


def cast(net: KEEP, dtype: torch.dtype) -> KEEP:
    """``net`` with its weights in ``dtype``, except the flow estimator: positions need float32."""
    for name, child in net.named_children():
        if name != "flownet":
            child.to(dtype)
    return net


class Restorer:
    """Restores clips of aligned faces. Each call of :meth:`restore` starts a new clip.

    Attributes:
        net: the network.
        options: arguments of :func:`keep.inference.streaming.stream`.
    """

    def __init__(self, net: KEEP, **options: Any) -> None:
        self.net = net.requires_grad_(False).eval()
        self.options = options

    def restore(self, frames: np.ndarray | Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Restore a clip of any length lazily: at most ``window`` frames are read ahead.

        Args:
            frames: aligned faces, RGB uint8: an array (T, H, H, 3), or an iterable of (H, H, 3), all of the same
                size. They are resized bilinearly to the network's size (e.g. from a quarter of it, as in eq. (9)).

        Yields:
            a restored frame for each frame, RGB uint8 (image_size, image_size, 3).

        Raises:
            UserError: frames of another type or shape.
        """
        restored = self.stream(frames)
        return (to_uint8(r.output[0]).permute(1, 2, 0).cpu().numpy() for r in restored)

    def stream(self, frames: np.ndarray | Iterable[np.ndarray]) -> Iterator[RestoredFrame]:
        """As :meth:`restore`, but with the tensors of the network: output, gain and, with an error model, the expected
        error of every block, ``RestoredFrame.error``."""
        if isinstance(frames, np.ndarray):
            if frames.ndim != 4:
                raise UserError(f"a clip is an array (T, H, H, 3); got shape {frames.shape}")
            if len(frames):
                _check(frames[0], None, 0)
        return stream(self.net, self._inputs(frames), **self.options)

    def _inputs(self, frames: Iterable[np.ndarray]) -> Iterator[Tensor]:
        """uint8 (H, H, 3) → float32 (1, 3, S, S) in [-1, 1] on the network's device."""
        device = self.net.codebook.embedding.weight.device
        shape = None
        for i, frame in enumerate(frames):
            shape = _check(frame, shape, i)
            x = to_float(torch.from_numpy(np.ascontiguousarray(frame)).to(device).permute(2, 0, 1)[None])
            yield resize(x, self.net.image_size)


def resize(x: Tensor, size: int) -> Tensor:
    """(N, 3, H, H) → (N, 3, size, size), bilinear; antialiased when it shrinks."""
    if x.shape[-1] == size:
        return x
    return F.interpolate(x, (size, size), mode="bilinear", align_corners=False, antialias=x.shape[-1] > size)


def _check(frame: Any, shape: tuple[int, ...] | None, i: int) -> tuple[int, ...]:
    """The shape of frame ``i``, which must equal ``shape`` unless that is None."""
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
        kind = frame.dtype if isinstance(frame, np.ndarray) else type(frame).__name__
        raise UserError(f"frame {i}: expected a uint8 RGB array; got {kind}")
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.shape[0] != frame.shape[1] or not frame.size:
        raise UserError(f"frame {i}: expected an aligned face, square (H, H, 3); got shape {frame.shape}")
    if shape is not None and frame.shape != shape:
        raise UserError(f"frame {i}: its shape {frame.shape} differs from the frames before it, {shape}")
    return frame.shape
