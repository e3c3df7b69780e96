"""Temporal consistency of neighbouring output frames."""

from typing import Literal

from torch import Tensor, nn

from keep.config.registry import LOSSES
from keep.flow.warp import warp
from keep.losses.pixel import charbonnier
from keep.utils.ranges import Weight


@LOSSES.register()
class Temporal(nn.Module):
    """Masked difference of each output frame to its warped predecessor: 𝓛_temp of eq. (7).

    Eq. (7) sums over the frames. Its norm over pixels and channels is taken as a mean here, masked pixels included, as
    in L_1: as a sum it would be hundreds of thousands of times as large as L_1, and the weights of eq. (8) would not
    balance the two.

    Args:
        weight: factor of this term in the total.
        kind: the distance; l1 in eq. (7).
        reduction: over the frames t = 2 … T. ``sum``: eq. (7), the term grows with the clip. ``mean``: the sum divided
            by T - 1, so that ``weight`` does not depend on the length of the clip.
    """

    def __init__(
        self,
        weight: Weight = 1.0,
        kind: Literal["l1", "charbonnier"] = "l1",
        reduction: Literal["sum", "mean"] = "mean",
    ) -> None:
        super().__init__()
        self.weight = weight
        self.kind = kind
        self.reduction = reduction

    def forward(self, output: Tensor, flows: Tensor, masks: Tensor) -> Tensor:
        """Scalar; 0 for a clip of one frame.

        Args:
            output: (B, T, C, H, W).
            flows: (B, T-1, 2, H, W), of the ground truth, current→previous, pixels; entry t belongs to frame t+1.
            masks: (B, T-1, 1, H, W), 1 where the flow is valid.
        """
        if output.shape[1] == 1:
            return output[:0].sum()  # a zero with a graph: backward works
        current, previous = output[:, 1:].flatten(0, 1), output[:, :-1].flatten(0, 1)
        difference = current - warp(previous, flows.flatten(0, 1))
        distance = difference.abs() if self.kind == "l1" else charbonnier(difference)
        mean = (masks.flatten(0, 1) * distance).mean()
        return mean * flows.shape[1] if self.reduction == "sum" else mean
