"""KEEP from Python: load weights once, restore clips of aligned faces frame by frame.

    import keep
    restorer = keep.load_restorer()          # the small network that comes with the package; "KEEP": the authors'
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
from keep.inference.fast import accelerate
from keep.inference.streaming import CONTEXT, WINDOW, stream
from keep.inference.weights import DEFAULT, Params, load_keep
from keep.utils.devices import pick_device
from keep.utils.dtypes import parse_dtype
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
) -> "Restorer":
    """A restorer of clips of aligned faces.

    Args:
        weights: a weights file (``docs/weights.md``); ``nano``, the small network that comes with the package; or
            ``KEEP``, ``KEEP_Asian`` or ``KEEP_v0.1.0``: the authors' files, downloaded once.
        device: ``auto`` (CUDA where there is one, else CPU), ``cpu``, ``cuda``, ``cuda:N``.
        dtype: ``float32``, ``bfloat16`` (``bf16``) or ``float16`` (``fp16``); the flow is always estimated in float32.
        params: averaged (``ema``) or ``online`` weights, where the file has both.
        net: the network, where the file does not say: a module, or ``{"type": "KEEP", …}``.
        flow: a flow estimator in place of the file's: a module, or a name such as ``"dis"``.
        cache: where downloads go; by default ``$KEEP_HOME`` or ``~/.cache/keep``.
        window: frames that are encoded at once: more is faster and takes more memory.
        context: earlier frames that the gains of a ``clip`` network look at
            (:class:`keep.inference.streaming.Streamer`).
        fidelity: weight w of CFT, 0 (the codebook's quality) to 1 (faithful to the input).
        cft: use the controllable feature transformation.
        cfa: use the cross-frame attention.
        fast: compute in the ways of :func:`keep.inference.fast.accelerate`, with the same result up to rounding; False
            leaves the network as it is, to train on or to save.
        compile: ``torch.compile`` the sub-networks; needs ``fast``. The first clip then takes minutes.

    Raises:
        UserError: no such file, device or dtype, or another network's weights.
    """
    dtype = parse_dtype(dtype)
    place = pick_device(str(device))
    network = load_keep(weights, params, flow, net=net, cache=None if cache is None else Path(cache))
    options = {"window": window, "context": context, "w": fidelity, "use_cft": cft, "use_cfa": cfa}
    if fast:
        network = accelerate(network, dtype, compile=compile)
    elif compile:
        raise UserError("compile needs fast=True")
    else:
        cast(network, dtype)
    return Restorer(network.to(place), **options)


def cast(net: KEEP, dtype: torch.dtype) -> KEEP:
    """``net`` with its weights in ``dtype``, but for the flow estimator: positions need float32."""
    for name, child in net.named_children():
        if name != "flownet":
            child.to(dtype)
    return net


class Restorer:
    """Restores clips of aligned faces. Each call of :meth:`restore` is a clip of its own.

    Attributes:
        net: the network.
    """

    def __init__(self, net: KEEP, **options: Any) -> None:
        self.net = net.requires_grad_(False).eval()
        self.options = options

    def restore(self, frames: np.ndarray | Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Restore a clip, lazily: at most ``window`` frames are read ahead, whatever its length.

        Args:
            frames: aligned faces, RGB uint8: an array (T, H, H, 3), or an iterable of (H, H, 3), all of one size.
                They are resized to the network's size bilinearly (e.g. from a quarter of it, as in eq. (9)).

        Yields:
            restored frames, RGB uint8 (image_size, image_size, 3), one for each.

        Raises:
            UserError: frames of another type or shape.
        """
        if isinstance(frames, np.ndarray):
            if frames.ndim != 4:
                raise UserError(f"a clip is an array (T, H, H, 3); got shape {frames.shape}")
            if len(frames):
                _check(frames[0], None, 0)
        restored = stream(self.net, self._inputs(frames), **self.options)
        return (to_uint8(r.output[0]).permute(1, 2, 0).cpu().numpy() for r in restored)

    def _inputs(self, frames: Iterable[np.ndarray]) -> Iterator[Tensor]:
        """uint8 (H, H, 3) → float32 (1, 3, S, S) in [-1, 1] on the network's device."""
        device = self.net.codebook.embedding.weight.device
        shape = None
        for i, frame in enumerate(frames):
            shape = _check(frame, shape, i)
            x = to_float(torch.from_numpy(np.ascontiguousarray(frame)).to(device).permute(2, 0, 1)[None])
            yield resize(x, self.net.image_size)


def resize(x: Tensor, size: int) -> Tensor:
    """(N, 3, H, H) → (N, 3, size, size), bilinear; antialiased where it shrinks."""
    if x.shape[-1] == size:
        return x
    return F.interpolate(x, (size, size), mode="bilinear", align_corners=False, antialias=x.shape[-1] > size)


def _check(frame: Any, shape: tuple[int, ...] | None, i: int) -> tuple[int, ...]:
    """The frame's shape, which must be ``shape`` where that is known."""
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
        kind = frame.dtype if isinstance(frame, np.ndarray) else type(frame).__name__
        raise UserError(f"frame {i}: expected a uint8 RGB array; got {kind}")
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.shape[0] != frame.shape[1] or not frame.size:
        raise UserError(f"frame {i}: expected an aligned face, square (H, H, 3); got shape {frame.shape}")
    if shape is not None and frame.shape != shape:
        raise UserError(f"frame {i}: its shape {frame.shape} is not that of the frames before it, {shape}")
    return frame.shape
