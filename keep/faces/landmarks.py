"""Landmark networks: dozens of points on a face with a known box."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, Any, Self

import cv2
import numpy as np
import torch
from pydantic import Field

from keep.config.registry import LANDMARKS
from keep.faces.align import crop, invert, transform
from keep.faces.files import facexlib, read_onnx, state_dict, weights_file
from keep.faces.identity import dlib_model, import_dlib
from keep.utils.errors import UserError
from keep.utils.weight_files import fill

Factor = Annotated[float, Field(gt=0, le=100)]


class Landmarks(ABC):
    """Base of the landmark networks. Each maps a square crop to points.

    Attributes:
        name: name of the network; part of the name of every metric that uses it.
        count: L, the number of points.
        side: side of the square crop in pixels.
        factor: side of the square in the frame over a side of the box.
        of_longer: whether this is the box's longer side, or its shorter one.
        files: the weight files that were loaded.
    """

    name: str
    files: tuple[Path, ...] = ()
    count: int
    side: int
    factor: float
    of_longer: bool = True

    @abstractmethod
    def points(self, image: np.ndarray) -> np.ndarray:
        """A crop, uint8 (side, side, 3) RGB → float (L, 2) in its pixels."""

    def to(self, device: torch.device | str) -> Self:
        """Move the network. Networks outside PyTorch stay on the CPU."""
        return self

    def __call__(self, frames: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Landmarks in every frame.

        Args:
            frames: uint8 (T, H, W, 3) RGB.
            boxes: (T, 4), the face in each frame, in pixels; NaN in frames without a face.

        Returns:
            float32 (T, L, 2) in pixels of the frame; NaN in frames without a box.
        """
        if len(frames) != len(boxes):
            raise UserError(f"{self.name}: {len(frames)} frames, but boxes for {len(boxes)}")
        result = np.full((len(frames), self.count, 2), np.nan, np.float32)
        known = [t for t in range(len(frames)) if np.isfinite(boxes[t]).all()]
        for t in known:
            matrix = self._square(np.asarray(boxes[t], np.float64))
            found = self.points(crop(frames[t], matrix, self.side))
            result[t] = transform(invert(matrix), found)
        return result

    def _square(self, box: np.ndarray) -> np.ndarray:
        """(2, 3): maps the frame to the crop around the box's centre."""
        sides = box[2:] - box[:2]
        length = self.factor * float(sides.max() if self.of_longer else sides.min())
        if length <= 0:
            raise UserError(f"{self.name}: the box {box.tolist()} is empty")
        scale = self.side / length
        shift = (self.side - 1) / 2 - scale * (box[:2] + box[2:]) / 2
        return np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])


@LANDMARKS.register()
class FAN(Landmarks):
    """FAN with adaptive wing loss (Wang et al., ICCV 2019) from facexlib: 98 points as in WFLW, 4 hourglasses.

    Args:
        weights: a checkpoint of the network; by default facexlib's published file, downloaded once.
        factor: side of the network's square input over the longer side of the face's box. In FFHQ's framing, which is
            common with this file, a detector's box covers a bit more than half the side.
    """

    count = 98
    side = 256

    def __init__(self, weights: Path | None = None, factor: Factor = 1.8) -> None:
        module = facexlib("alignment.awing_arch")
        path = weights_file("alignment_WFLW_4HG.pth", weights)
        with torch.random.fork_rng(devices=[]):
            self.net = module.FAN(num_modules=4, num_landmarks=98, device=torch.device("cpu"))
        fill(self.net, state_dict(path), path)
        self.net.requires_grad_(False).eval()
        self.device, self.factor, self.name, self.files = torch.device("cpu"), factor, "FAN-AWing-98", (path,)

    def to(self, device: torch.device | str) -> Self:
        self.device = torch.device(device)
        self.net.to(self.device)
        return self

    @torch.no_grad()
    def points(self, image: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(image.copy()).to(self.device).permute(2, 0, 1)[None].float() / 255
        heat = self.net(x)[0][-1][0, :98].float().cpu().numpy()  # the last map shows the face's outline
        return peaks(heat) * (self.side / heat.shape[-1]) - 0.5


def peaks(heat: np.ndarray) -> np.ndarray:
    """The highest cell of each map (L, h, w), a quarter cell towards its higher neighbours; (L, 2) from the corner.

    FAN was evaluated with this decoding. facexlib's own version needs NumPy before 1.24.
    """
    count, width = heat.shape[0], heat.shape[2]
    y, x = np.divmod(heat.reshape(count, -1).argmax(1), width)
    edged = np.pad(heat, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = np.arange(count)
    dx = np.sign(edged[rows, y + 1, x + 2] - edged[rows, y + 1, x])
    dy = np.sign(edged[rows, y + 2, x + 1] - edged[rows, y, x + 1])
    return np.stack([x + 0.5 + 0.25 * dx, y + 0.5 + 0.25 * dy], 1)


@LANDMARKS.register()
class PFLD(Landmarks):
    """PFLD (Guo et al., 2019) in an ONNX file, through OpenCV: 68 points as in 300-W.

    Args:
        weights: the ONNX file: input N×3×112×112, BGR in 0…1; output (x, y) of each point, as fractions of the crop.
        factor: side of the network's square input over the shorter side of the face's box.
    """

    count = 68
    side = 112
    of_longer = False

    def __init__(self, weights: Path, factor: Factor = 1.2) -> None:
        path = weights_file("an ONNX landmark network", weights)
        self.net, self.factor, self.name, self.files = read_onnx(path), factor, "PFLD-68", (path,)
        try:
            shape = self.points(np.zeros((self.side, self.side, 3), np.uint8)).shape
        except (cv2.error, ValueError) as error:
            raise UserError(f"{path} is not a landmark network for 3×112×112 crops: {error}") from error
        if shape != (self.count, 2):
            raise UserError(f"{path} outputs {shape[0]} points; PFLD has {self.count}")

    def points(self, image: np.ndarray) -> np.ndarray:
        self.net.setInput(cv2.dnn.blobFromImage(image, 1 / 255, swapRB=True))
        fractions = np.array(self.net.forward(), np.float64).reshape(-1, 2)
        return fractions * self.side - 0.5


@LANDMARKS.register()
class Dlib68(Landmarks):
    """dlib's 68 points (Kazemi and Sullivan, CVPR 2014, trained on 300-W); offline, from packages."""

    count = 68
    side = 256
    factor = 2.0
    name = "dlib-68"

    def __init__(self) -> None:
        dlib = import_dlib()
        self._rectangle = dlib.rectangle(*DLIB_BOX)
        file = dlib_model("shape_predictor_68_face_landmarks.dat")
        self._shape: Any = dlib.shape_predictor(str(file))
        self.files = (file,)

    def points(self, image: np.ndarray) -> np.ndarray:
        shape = self._shape(np.ascontiguousarray(image), self._rectangle)
        return np.array([(p.x, p.y) for p in shape.parts()], np.float64)


DLIB_BOX = (77, 89, 181, 192)
"""Box of dlib's own detector in a square of twice the longer side of YuNet's box, median of 20 people."""
