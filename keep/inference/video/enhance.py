"""Enlarges full frames by a super-resolution network that spandrel can load (ESRGAN, SPAN, SwinIR, DAT, …)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from keep.data.frames import to_float
from keep.utils.errors import UserError

TILE, OVERLAP = 512, 16  # px of the input


class Enhancer:
    """A super-resolution model for single images.

    Attributes:
        scale: output size over input size.

    Args:
        path: the model's file.
        device: where the model runs.
        half: compute in float16 if the model supports it (CUDA only).

    Raises:
        UserError: spandrel is not installed, or cannot load the file.
    """

    def __init__(self, path: str | Path, device: torch.device | str = "cpu", half: bool = True) -> None:
        try:
            from spandrel import ImageModelDescriptor, ModelLoader
        except ImportError as error:
            raise UserError("a background model needs spandrel: pip install keep-vfsr[background]") from error
        if not Path(path).is_file():
            raise UserError(f"background model: there is no file {path}")
        try:
            model: Any = ModelLoader(device="cpu").load_from_file(str(path))
        except Exception as error:  # spandrel and torch.load raise many types
            raise UserError(f"{path}: not a super-resolution model that spandrel can load: {error}") from error
        if not isinstance(model, ImageModelDescriptor) or model.input_channels != 3 or model.output_channels != 3:
            raise UserError(f"{path}: contains {model.architecture.name}, which is not RGB super-resolution")
        self.device = torch.device(device)
        self.scale: int = model.scale
        self._minimum = max(1, model.size_requirements.multiple_of or 1)
        self._dtype = torch.float16 if half and self.device.type == "cuda" and model.supports_half else torch.float32
        self._model = model.eval().to(self.device, self._dtype)

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) RGB → uint8 (scale·H, scale·W, 3). Works in tiles: memory does not grow with the frame."""
        height, width = image.shape[:2]
        result = np.empty((height * self.scale, width * self.scale, 3), np.uint8)
        for y in range(0, height, TILE):
            for x in range(0, width, TILE):
                bottom, right = min(y + TILE, height), min(x + TILE, width)
                y0, x0 = max(0, y - OVERLAP), max(0, x - OVERLAP)
                part = self._tile(image[y0 : min(bottom + OVERLAP, height), x0 : min(right + OVERLAP, width)])
                s = self.scale
                inner = part[(y - y0) * s : (bottom - y0) * s, (x - x0) * s : (right - x0) * s]
                result[y * s : bottom * s, x * s : right * s] = inner
        return result

    def _tile(self, tile: np.ndarray) -> np.ndarray:
        height, width = tile.shape[:2]
        x = torch.from_numpy(np.ascontiguousarray(tile)).to(self.device).permute(2, 0, 1)[None]
        x = ((to_float(x) + 1) / 2).to(self._dtype)
        pad = (-width % self._minimum, -height % self._minimum)
        if any(pad):
            x = F.pad(x, (0, pad[0], 0, pad[1]), mode="replicate")
        y = self._model(x)[0, :, : height * self.scale, : width * self.scale]
        return (y.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
