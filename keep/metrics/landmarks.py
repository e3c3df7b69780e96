"""Landmarks: AKD of table A2. σ_AKD is :class:`keep.metrics.sigma.Sigma` of AKD."""

from typing import Annotated, Any

import numpy as np

from keep.config.registry import DETECTORS, LANDMARKS, METRICS
from keep.metrics.base import Clip, Metric
from keep.metrics.faces import FacesOf, default_detector, describe_faces, face_clip, find_faces

PIXELS_AT = 512


@METRICS.register()
class AKD(Metric):
    """Average keypoint distance: mean L2 distance of the landmarks of output and ground truth, frame by frame.

    In pixels of a 512×512 frame, as in the supplement: for frames of another size, the distance in pixels times 512
    over the longer side. The supplement names neither the network nor how faces are found.

    Args:
        network: the landmark network; the metric's name includes its name.
        detector: finds the faces; null uses the best available (``keep.faces.detect.default_detector``).
        faces: where the face of the output is located; see ``IDS``.
    """

    decimals = 3

    def __init__(
        self,
        network: Annotated[Any, LANDMARKS],
        detector: Annotated[Any, DETECTORS] | None = None,
        faces: FacesOf = "truth",
    ) -> None:
        self.network, self.detector = network, detector or default_detector()
        self.faces: FacesOf = faces
        self.name, self.higher_is_better = f"AKD ({network.name})", False

    def describe(self) -> str:
        return f"{super().describe()} {self.network.name}; {describe_faces(self.detector, self.faces)}."

    def measure(self, output: Clip, target: Clip) -> np.ndarray:
        a = landmarks(output, face_clip(output, target, self.faces), self.network, self.detector)
        b = landmarks(target, target, self.network, self.detector)
        return np.linalg.norm(a - b, axis=2).mean(1) * (PIXELS_AT / max(output.frames.shape[-2:]))


def landmarks(clip: Clip, located_in: Clip, network: Any, detector: Any) -> np.ndarray:
    """Landmarks of the face in each frame: float64 (T, L, 2) in pixels; NaN if ``located_in`` has no face there.

    Raises:
        UserError: ``located_in`` has no face at all.
    """
    boxes, _ = find_faces(located_in, detector)

    def compute() -> np.ndarray:
        return network.to(clip.frames.device)(clip.images, boxes).astype(np.float64)

    other = None if located_in is clip else located_in
    return clip.once(("landmarks", network, detector, other), compute)
