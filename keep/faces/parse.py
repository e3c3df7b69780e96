"""Face parsing: a soft mask for pasting that excludes hands and microphones."""

from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from keep.faces.files import facexlib, is_available, state_dict, weights_file
from keep.faces.paste import feathered_mask
from keep.utils.errors import UserError
from keep.utils.weight_files import fill

FILE = "parsing_parsenet.pth"
SIZE = 512  # ParseNet's input
# CelebAMask-HQ's classes. The face: skin, nose, glasses, eyes, brows, ears, mouth, lips, hair, earring.
# Not the face: background (and objects in front of the face), hat, necklace, neck, cloth.
FACE_CLASSES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15)
SOFT = 0.02  # σ of the mask's edge, as a fraction of the crop's side


class Parser(Protocol):
    """Aligned faces (N, S, S, 3) uint8 RGB → mask of face pixels, bool (N, S, S)."""

    def __call__(self, faces: np.ndarray) -> np.ndarray: ...


class ParseNet:
    """The face parsing network of the public face restorers, as facexlib defines it.

    Args:
        weights: its state dict; by default facexlib's published file, downloaded once.
        device: where it runs.

    Raises:
        UserError: facexlib is not installed, or the weights are not available, or of another network.
    """

    def __init__(self, weights: Path | None = None, device: torch.device | str = "cpu") -> None:
        path = weights_file(FILE, weights)
        net: Any = facexlib("parsing.parsenet").ParseNet(in_size=SIZE, out_size=SIZE, parsing_ch=19)
        fill(net, state_dict(path), path)
        self.net, self.device = net.requires_grad_(False).eval().to(device), torch.device(device)

    @torch.no_grad()
    def __call__(self, faces: np.ndarray) -> np.ndarray:
        found = []
        for face in faces:
            x = torch.from_numpy(np.ascontiguousarray(face)).to(self.device).permute(2, 0, 1)[None].float() / 127.5 - 1
            x = F.interpolate(x, (SIZE, SIZE), mode="bilinear", align_corners=False)
            classes = self.net(x)[0].argmax(1)
            mask = torch.isin(classes, torch.tensor(FACE_CLASSES, device=self.device)).float()
            found.append(F.interpolate(mask[None], face.shape[:2], mode="area")[0, 0].cpu().numpy() > 0.5)
        return np.stack(found)


def find_parser(choice: str, device: torch.device | str = "cpu", cache: Path | None = None) -> Parser | None:
    """The parser that ``choice`` names; None for ``none``.

    Args:
        choice: ``auto`` (ParseNet if facexlib and its file are on this machine), ``none``, ``parsenet`` (downloaded
            if needed), or the path of its weights.
        device: where it runs.
        cache: folder of downloaded weights.
    """
    if choice == "none":
        return None
    if choice == "auto":
        if not is_available(FILE, cache):
            return None
        try:
            return ParseNet(weights_file(FILE, cache=cache), device)
        except UserError:
            return None
    return ParseNet(weights_file(FILE, cache=cache) if choice == "parsenet" else Path(choice), device)


def soft_mask(restored: np.ndarray, given: np.ndarray) -> np.ndarray:
    """The pasting mask from the parsed restored and input crops: float32 (S, S), 0 to 1.

    A network paints skin over a hand in front of the face. So only pixels that are face in both crops are pasted. If
    the parser finds less than half of the face in a poor input, only the restored crop counts.

    Args:
        restored: bool (S, S), the parse of the restored crop.
        given: bool (S, S), the parse of the input crop.
    """
    size = restored.shape[0]
    both = restored & given
    mask = (both if 2 * both.sum() >= restored.sum() else restored).astype(np.float32)
    # Eroded before it is blurred, so that the mask ends where the face does.
    sigma = SOFT * size
    width = 2 * round(sigma) + 1
    mask = cv2.erode(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)))
    return cv2.GaussianBlur(mask, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE) * feathered_mask(size, 0.0, 0.05)
