"""KEEP without memory of earlier frames, for ablation."""

from pathlib import Path
from typing import Literal

import torch

from keep.config.registry import BASELINES, Arch
from keep.degradation.resize import upsample
from keep.inference.weights import build_network, read
from keep.utils.ranges import Batch, Scale, Share


@BASELINES.register()
class KEEPPerFrame:
    """KEEP without Kalman filter and cross-frame attention: every frame is restored as if it were the first.

    ẑ⁺_t = z̃_t, decoded with CFT alone: an image restorer similar to CodeFormer, with the weights of KEEP.

    Args:
        weights: a checkpoint of stage II or III, a public one, or the name of one: ``KEEP``, ``KEEP_Asian``,
            ``KEEP_v0.1.0`` (downloaded once).
        net: the network, if the checkpoint does not store its options; null uses the stored ones.
        params: ``ema`` (averaged) or ``online`` weights, if the file has both.
        cft: use the controllable feature transformation (off for a stage II checkpoint).
        fidelity: weight w of CFT, 0 to 1.
        scale: upsampling factor of the LQ frames.
        frames: frames restored at once; it changes the memory used, not the result.
        cache: folder for downloaded weights; null: $KEEP_HOME, or ~/.cache/keep.
    """

    def __init__(
        self,
        weights: Path,
        net: Arch | None = None,
        params: Literal["ema", "online"] = "ema",
        cft: bool = True,
        fidelity: Share = 1.0,
        scale: Scale = 4,
        frames: Batch = 4,
        cache: Path | None = None,
    ) -> None:
        found = read(weights, params, cache)
        self.net = build_network(found, net=net).requires_grad_(False)
        self.weights, self.params, self.scale, self.frames = weights, found.params, scale, frames
        self.files = (found.path,)
        self.options = {"w": fidelity, "use_cft": cft, "use_filter": False}

    def to(self, device: torch.device) -> "KEEPPerFrame":
        self.net.to(device)
        return self

    def describe(self) -> str:
        return f"{type(self.net).__name__} frame by frame ({self.params}) {self.weights}"

    @torch.no_grad()
    def __call__(self, lq: torch.Tensor) -> torch.Tensor:
        """(T, 3, h, w) in [-1, 1] → (T, 3, scale·h, scale·w) in [-1, 1]."""
        restored = []
        for frames in lq.split(self.frames):
            restored.append(self.net(upsample(frames, self.scale)[None], **self.options)[0])
        return torch.cat(restored)
