"""The error model: how far each block of a restored face is likely to be from the truth."""

from collections.abc import Iterator

import torch

from keep.archs.confidence import FLOORS, to_log
from keep.archs.evidence import EVIDENCE
from keep.config.registry import MODELS, Arch
from keep.models.base import Batch, Recipe, Slot, Terms
from keep.utils.errors import UserError

BRIGHT = 24.0  # grey levels of an error that is white in a preview


@MODELS.register()
class ConfidenceModel(Recipe):
    """Quantiles of the errors of a frozen KEEP, from its evidence, by the pinball loss on their logarithms.

    Trains on ``EvidenceMaps``: the network has restored the clips before. The intervals need calibration afterwards,
    on people that are in no training clip: ``scripts/confidence.py``. Slot of ``pretrained``: ``head``, to continue.

    Args:
        net: ``ConfidenceHead``, or a network with its ``tails`` and its ``forward``.
    """

    needs_lq = True

    def __init__(self, net: Arch) -> None:
        super().__init__()
        self.net = net

    def slots(self) -> dict[str, Slot]:
        return {"head": Slot("a head to continue from")}

    def losses(self, batch: Batch, step: int) -> Iterator[tuple[str, Terms]]:
        evidence, errors = self._maps(batch)
        target = to_log(errors.flatten(0, 1))
        quantiles = self.net(evidence.flatten(0, 1)).float()
        low, high = self.net.tails
        levels = quantiles.new_tensor([low, 0.5, 1 - high]).view(1, 1, 3, 1, 1)
        missed = target[:, :, None] - quantiles
        pinball = torch.maximum(levels * missed, (levels - 1) * missed).mean((0, 2, 3, 4))
        inside = (target >= quantiles[:, :, 0]) & (target <= quantiles[:, :, 2])
        self.stats = {"inside/luma": inside[:, 0].float().mean(), "inside/LPIPS": inside[:, 1].float().mean()}
        yield "net", {"luma": pinball[0], "LPIPS": pinball[1]}

    @staticmethod
    def _maps(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        evidence, errors = batch.get("lq"), batch["gt"]
        if evidence is None or evidence.shape[2] != len(EVIDENCE) or errors.shape[2] != len(FLOORS):
            raise UserError("data.train: ConfidenceModel trains on EvidenceMaps; collect them: scripts/confidence.py")
        return evidence, errors

    def restore(self, frames: torch.Tensor) -> torch.Tensor:
        """Evidence (B, T, maps, b, b) → the middle of the expected error of luma as a grey picture (B, T, 3, b, b)."""
        middle = self.net.bands(frames.flatten(0, 1)).middle[:, :1]
        return grey(middle).unflatten(0, frames.shape[:2])

    def panels(self, batch: Batch) -> dict[str, torch.Tensor]:
        evidence, errors = (x[:1] for x in self._maps(batch))
        brightness = evidence[:, :, list(EVIDENCE).index("brightness")][:, :, None].expand(-1, -1, 3, -1, -1)
        true = grey(errors.flatten(0, 1)[:, :1]).unflatten(0, errors.shape[:2])
        return {"face": brightness, "expected error": self.restore(evidence), "true error": true}


def grey(errors: torch.Tensor) -> torch.Tensor:
    """Errors (N, 1, b, b) in grey levels → pictures (N, 3, b, b) in [-1, 1], black where there is none."""
    return (2 * errors / BRIGHT - 1).clamp(-1, 1).expand(-1, 3, -1, -1)
