"""KEEP from a checkpoint."""

from pathlib import Path
from typing import Literal

import torch

from keep.archs.confidence import ConfidenceHead
from keep.config.registry import BASELINES, Arch
from keep.degradation.resize import upsample
from keep.inference.confidence import load_confidence, path_of
from keep.inference.streaming import CONTEXT, WINDOW, stream
from keep.inference.weights import build_network, read
from keep.utils import hub
from keep.utils.ranges import Batch, Scale, Share


@BASELINES.register("KEEP")
class KEEPRestorer:
    """KEEP with trained weights, on clips of any length.

    Args:
        weights: a checkpoint of stage II or III, a public one, or the name of one: ``lite``, ``nano`` (shipped),
            ``KEEP``, ``KEEP_Asian``, ``KEEP_v0.1.0`` (downloaded once); or ``hf://ORG/NAME[@REVISION]``.
        net: the network, if the checkpoint does not store its options; null uses the stored ones.
        params: ``ema`` (averaged) or ``online`` weights, if the file has both.
        cft: use the controllable feature transformation (off for a stage II checkpoint).
        cfa: use the cross-frame attention (off for a stage II checkpoint).
        fidelity: weight w of CFT, 0 to 1.
        scale: upsampling factor of the LQ frames.
        window: frames encoded at once; it changes the memory used, not the result.
        context: number of earlier frames that the gain of a ``clip`` network uses.
        cache: folder for downloaded weights; null: $KEEP_HOME, or ~/.cache/keep.
        confidence: also predict the error of each block, by the error model of the weights; the report shows it.
        min_confidence: go back to the input where a block is less likely than this to show what was there.
    """

    def __init__(
        self,
        weights: Path,
        net: Arch | None = None,
        params: Literal["ema", "online"] = "ema",
        cft: bool = True,
        cfa: bool = True,
        fidelity: Share = 1.0,
        scale: Scale = 4,
        window: Batch = WINDOW,
        context: Batch = CONTEXT,
        cache: Path | None = None,
        confidence: bool = False,
        min_confidence: Share = 0.0,
    ) -> None:
        found = read(weights, params, cache)
        self.net = build_network(found, net=net).requires_grad_(False)
        self.weights, self.params, self.scale, self.files = weights, found.params, scale, (found.path,)
        self.options = {"w": fidelity, "use_cft": cft, "use_cfa": cfa, "window": window, "context": context}
        self.confidence: ConfidenceHead | None = None
        if confidence or min_confidence:
            self.confidence = load_confidence(weights, params, cache)
            self.options["min_confidence"] = min_confidence
            self.files = (*self.files, path_of(found.path))
        self.gains: torch.Tensor | None = None
        """Kalman gains (T, h, w) of the last clip, in [0, 1]."""
        self.errors: torch.Tensor | None = None
        """Low end, middle and high end of the expected error of luma in the last clip (3, T, H/8, W/8), in grey levels;
        None without an error model."""

    def to(self, device: torch.device) -> "KEEPRestorer":
        self.net.to(device)
        if self.confidence is not None:
            self.confidence.to(device)
        return self

    def describe(self) -> str:
        return f"{type(self.net).__name__} ({self.params}) {hub.shown(self.weights)}"

    @torch.no_grad()
    def __call__(self, lq: torch.Tensor) -> torch.Tensor:
        """(T, 3, h, w) in [-1, 1] → (T, 3, scale·h, scale·w) in [-1, 1]."""
        frames = (upsample(frame, self.scale) for frame in lq.split(1))
        restored = list(stream(self.net, frames, confidence=self.confidence, **self.options))
        bands = [r.bands for r in restored if r.bands is not None]
        if bands:
            ends = [torch.cat([getattr(b, name)[:, 0] for b in bands]) for name in ("low", "middle", "high")]
            self.errors = torch.stack(ends).float().cpu()
        self.gains = torch.cat([r.gain for r in restored]).squeeze(1).float().cpu()
        return torch.cat([r.output for r in restored])
