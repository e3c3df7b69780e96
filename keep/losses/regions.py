"""More weight on the parts of a face that people look at first."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from keep.config.registry import LOSSES, Loss
from keep.utils.ranges import Weight

CENTRES = ((193 / 512, 240 / 512), (319 / 512, 240 / 512), (257 / 512, 371 / 512))
"""(x, y) of the eyes and of the mouth in an aligned face, as shares of its side: the template of keep.faces.align."""


@LOSSES.register()
class FaceRegions(nn.Module):
    """The losses of the whole frame once more, on squares around the eyes and the mouth of aligned faces.

    GFPGAN (Wang et al., CVPR 2021) weights the same regions with discriminators of their own; here they only count
    more in the pixel and the perceptual loss. The squares have fixed positions: frames need FFHQ's framing.

    Args:
        pixel: loss of the squares, such as L1; its weight counts within this term.
        perceptual: likewise, such as LPIPS; null: none.
        weight: factor of this term in the total.
        side: side of a square as a share of the frame's side.
    """

    def __init__(
        self,
        pixel: Loss,
        perceptual: Loss | None = None,
        weight: Weight = 1.0,
        side: Annotated[float, Field(gt=0, le=0.5)] = 0.25,
    ) -> None:
        super().__init__()
        self.pixel, self.perceptual = pixel, perceptual
        self.weight, self.side = weight, side

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """(N, 3, S, S) or (B, T, 3, S, S) RGB in [-1, 1], twice → scalar."""
        made, true = self.squares(output), self.squares(target)
        loss = self.pixel.weight * self.pixel(made, true)
        if self.perceptual is not None:
            loss = loss + self.perceptual.weight * self.perceptual(made, true)
        return loss

    def squares(self, frames: Tensor) -> Tensor:
        """(…, 3, S, S) → (3·N, 3, s, s): left eye, right eye and mouth of N frames, left and right as one sees them."""
        frames = frames.flatten(0, -4)
        height, width = frames.shape[-2:]
        side = round(self.side * min(height, width))
        corners = [(round(y * height - side / 2), round(x * width - side / 2)) for x, y in CENTRES]
        return torch.cat([frames[..., top : top + side, left : left + side] for top, left in corners])
