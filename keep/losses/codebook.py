"""Losses on latent codes: the two code terms of stage I and the code prediction of stage II."""

import torch.nn.functional as F
from torch import Tensor, nn

from keep.config.registry import LOSSES
from keep.utils.ranges import Decay, Weight


@LOSSES.register()
class Codebook(nn.Module):
    """The two code terms of eq. (3): ‖sg(z) − z_q‖² + commitment · ‖z − sg(z_q)‖², as means over elements.

    Args:
        weight: factor of this term in the total.
        commitment: factor of the second term, which moves the encoder; 1 in eq. (3), 0.25 in public VQGANs.
    """

    def __init__(self, weight: Weight = 1.0, commitment: Weight = 1.0) -> None:
        super().__init__()
        self.weight = weight
        self.commitment = commitment

    def forward(self, z: Tensor, z_q: Tensor) -> Tensor:
        """Encoder output and the codes chosen for it, equal shapes → scalar.

        ``z_q`` are the codebook's vectors before the straight-through estimator: otherwise the first term would train
        the encoder instead of the codebook.
        """
        return F.mse_loss(z_q, z.detach()) + self.commitment * F.mse_loss(z, z_q.detach())


@LOSSES.register()
class CodeCrossEntropy(nn.Module):
    """Cross-entropy of predicted code indices: 𝓛_CE of eq. (4).

    Args:
        weight: factor of this term in the total.
        label_smoothing: share of the target spread evenly over all codes.
    """

    def __init__(
        self,
        weight: Weight = 1.0,
        label_smoothing: Decay = 0.0,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, codes: Tensor) -> Tensor:
        """Logits (B, T, L, N) over N codes and indices (B, T, L), int64 → scalar, the mean over tokens."""
        return F.cross_entropy(logits.flatten(0, -2).float(), codes.flatten(), label_smoothing=self.label_smoothing)
