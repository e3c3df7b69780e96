"""Face recognition networks in PyTorch, for losses: with gradients from the embedding to the crop."""

from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor, nn

from keep.utils.errors import UserError

Colour = Literal["RGB", "BGR"]
Flip = Literal["sum", "concat", "none"]


class Embedding(nn.Module):
    """A frozen identity network behind its own preprocessing.

    Args:
        net: maps (N, 3, h, w) to (N, D).
        mean: subtracted from each channel value (0…255).
        scale: factor applied after that.
        colour: channel order of the network's input.
        flip: use of the mirrored crop's vector: added, appended, or not computed.
    """

    def __init__(
        self,
        net: nn.Module,
        mean: float = 127.5,
        scale: float = 1 / 127.5,
        colour: Colour = "RGB",
        flip: Flip = "none",
    ) -> None:
        super().__init__()
        self.net = net
        self.mean, self.scale, self.colour, self.flip = mean, scale, colour, flip
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """The network stays in evaluation mode."""
        return super().train(False)

    def forward(self, crops: Tensor) -> Tensor:
        """Crops (N, 3, h, w) RGB in [-1, 1] → embeddings (N, D), of any length."""
        x = ((crops + 1) * 127.5 - self.mean) * self.scale
        x = x.flip(1) if self.colour == "BGR" else x
        plain = self.net(x)
        if self.flip == "none":
            return plain
        mirrored = self.net(x.flip(-1))
        return plain + mirrored if self.flip == "sum" else torch.cat([plain, mirrored], 1)


def from_onnx(path: Path) -> nn.Module:
    """An ONNX file as a PyTorch network, by the package onnx2torch.

    Raises:
        UserError: the package is missing, or it cannot convert the file.
    """
    try:
        import onnx  # pyright: ignore[reportMissingImports]
        import onnx2torch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(f"gradients through {path} need onnx2torch ({error}): pip install keep-vfsr[onnx]") from error
    try:
        return onnx2torch.convert(onnx.load(path))
    except Exception as error:  # the packages raise many kinds
        raise UserError(f"{path} cannot be converted to PyTorch: {error}") from error
