"""Faces at any angle: detectors know upright ones, and put points anywhere on others."""

from typing import Any, Self

import numpy as np
import torch

from keep.faces.align import TEMPLATE_512, similarity, transform
from keep.faces.detect import Detector, Face
from keep.faces.geometry import iou

TILT, MISFIT, WORST = 60.0, 27.0, 65.0  # degrees, and px in a crop of 512 px


def is_plausible(points: np.ndarray) -> bool:
    """Whether five points (5, 2) can be those of a face.

    Detectors place the points of upright faces, profiles included, within about 26 px of the template (root mean
    square, in a crop of 512 px); those of faces on their side or upside down 28 to 55 px, tilted by more than 70°.
    """
    points = np.asarray(points, np.float64)
    eyes, mouth = points[:2].mean(0), points[3:].mean(0)
    if np.ptp(points, axis=0).max() < 1e-3:
        return False
    matrix = similarity(points)
    misfit = float(np.sqrt(((transform(matrix, points) - TEMPLATE_512) ** 2).sum(1).mean()))
    tilt = abs(np.degrees(np.arctan2(eyes[0] - mouth[0], mouth[1] - eyes[1])))
    return misfit <= (MISFIT if tilt > TILT else WORST)


class PlausibleFaces(Detector):
    """A detector without the faces whose points cannot be those of a face.

    Args:
        detector: another detector.
        any_angle: where it finds none, search the frame turned by quarters, too.

    Attributes:
        rejected: faces left out so far.
    """

    def __init__(self, detector: Detector, any_angle: bool = False) -> None:
        self.detector, self.any_angle, self.rejected = detector, any_angle, 0
        self.name, self.files = detector.name, detector.files
        self.longest_side, self.crop_side = detector.longest_side, detector.crop_side

    def rows(self, frame: np.ndarray) -> np.ndarray:
        return self.detector.rows(frame)

    def to(self, device: torch.device | str) -> Self:
        self.detector.to(device)
        return self

    def __call__(self, frame: np.ndarray) -> list[Face]:
        faces = self.detector(frame)
        good = [face for face in faces if is_plausible(face.points)]
        if self.any_angle and not good:
            good = self._turned(frame)
        else:
            self.rejected += len(faces) - len(good)
        return good

    def _turned(self, frame: np.ndarray) -> list[Face]:
        found: list[Face] = []
        for turns in (2, 1, 3):
            size = np.rot90(frame, turns).shape
            for face in self.detector(np.ascontiguousarray(np.rot90(frame, turns))):
                if is_plausible(face.points):
                    found.append(turned_back(face, turns, size))
        kept: list[Face] = []
        for face in sorted(found, key=lambda face: -face.score):
            if all(iou(face.box, other.box) < 0.4 for other in kept):
                kept.append(face)
        return sorted(kept, key=lambda face: -face.area)


def quarter_turns(points: np.ndarray) -> int:
    """Quarter turns (as of ``np.rot90``, counter-clockwise) after which the face of these points is upright."""
    eyes, mouth = points[:2].mean(0), points[3:].mean(0)
    return round(float(np.arctan2(eyes[0] - mouth[0], mouth[1] - eyes[1])) / (np.pi / 2)) % 4


def turned_back(face: Face, turns: int, size: Any) -> Face:
    """A face of a picture turned by ``np.rot90(…, turns)``, to (height, width, …) ``size``, as one of the original."""
    places = np.concatenate([face.box.reshape(2, 2), face.points]).astype(np.float32)
    height, width = size[:2]
    for _ in range(turns):  # one clockwise turn: (x, y) → (height - 1 - y, x)
        places = np.stack([height - 1 - places[:, 1], places[:, 0]], 1)
        height, width = width, height
    box = np.concatenate([places[:2].min(0), places[:2].max(0)])
    return Face(box, places[2:], face.score)
