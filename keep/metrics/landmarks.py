"""Landmarks: AKD of table A2. σ_AKD is :class:`keep.metrics.sigma.Sigma` of AKD."""

from typing import Annotated, Any

import numpy as np

from keep.config.registry import DETECTORS, LANDMARKS, METRICS
from keep.metrics.base import Clip, Metric
from keep.metrics.faces import FacesOf, default_detector, faces, place, told

PIXELS_AT = 512


@METRICS.register()
class AKD(Metric):
    """Average keypoint distance: mean L2 distance of the landmarks of output and ground truth, frame by frame.

    In pixels of a 512×512 frame, as in the supplement: for frames of another size, the distance in pixels times 512
    over the longer side. The supplement names neither the network nor how faces are found.

    Args:
        network: the landmark network; its name becomes part of the metric's.
        detector: finds the faces; null takes the one at hand (see ``keep.faces.detect.default_detector``).
        faces: where to look in the output; see ``IDS``.
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
        return f"{super().describe()} {self.network.name}; {told(self.detector, self.faces)}."

    def measure(self, output: Clip, target: Clip) -> np.ndarray:
        a = landmarks(output, place(output, target, self.faces), self.network, self.detector)
        b = landmarks(target, target, self.network, self.detector)
        return np.linalg.norm(a - b, axis=2).mean(1) * (PIXELS_AT / max(output.frames.shape[-2:]))


def landmarks(clip: Clip, located_in: Clip, network: Any, detector: Any) -> np.ndarray:
    """Landmarks of the face in each frame: float64 (T, L, 2), pixels; NaN where ``located_in`` has no face.

    Raises:
        UserError: ``located_in`` has no face at all.
    """
    boxes, _ = faces(located_in, detector)

    def compute() -> np.ndarray:
        return network.to(clip.frames.device)(clip.images, boxes).astype(np.float64)

    other = None if located_in is clip else located_in
    return clip.once(("landmarks", network, detector, other), compute)
