"""Identity: IDS of table A2, and VIDD. σ_IDS is :class:`keep.metrics.sigma.Sigma` of IDS."""

from typing import Annotated, Any

import numpy as np

from keep.config.registry import DETECTORS, IDENTITIES, METRICS
from keep.metrics.base import Clip, Metric
from keep.metrics.faces import FacesOf, default_detector, describe_faces, face_clip, find_faces


@METRICS.register()
class IDS(Metric):
    """Identity similarity: cosine of the face embeddings of output and ground truth, frame by frame.

    With a network whose embeddings are compared by distance (dlib's), it is their L2 distance, named ``ID-L2``, lower
    is better. The supplement names neither the network nor how faces are found and aligned.

    Args:
        network: the face recognition network; the metric's name includes its name.
        detector: finds the faces; null uses the best available (``keep.faces.detect.default_detector``).
        faces: where the face of the output is located. ``truth``: at the face of the ground truth, so that all
            restorers are scored on the same frames and regions. ``own``: detected in the output itself.
    """

    def __init__(
        self,
        network: Annotated[Any, IDENTITIES],
        detector: Annotated[Any, DETECTORS] | None = None,
        faces: FacesOf = "truth",
    ) -> None:
        self.network, self.detector = network, detector or default_detector()
        self.faces: FacesOf = faces
        self.higher_is_better = network.measure == "cosine"
        self.name = f"{'IDS' if self.higher_is_better else 'ID-L2'} ({network.name})"

    def describe(self) -> str:
        what = "cosine" if self.higher_is_better else "L2 distance"
        network, where = self.network.name, describe_faces(self.detector, self.faces)
        return f"Identity: {what} of the face embeddings of output and ground truth. {network}; {where}."

    def measure(self, output: Clip, target: Clip) -> np.ndarray:
        a = embeddings(output, face_clip(output, target, self.faces), self.network, self.detector)
        b = embeddings(target, target, self.network, self.detector)
        return (a * b).sum(1) if self.higher_is_better else np.linalg.norm(a - b, axis=1)


@METRICS.register()
class VIDD(Metric):
    """Video identity distance: L2 distance of the embeddings of neighbouring frames of the output.

    Embeddings that are compared by their cosine are scaled to length one first. The ground truth only locates the
    faces. Not in the paper.

    Args:
        network: the face recognition network; the metric's name includes its name.
        detector: finds the faces; null uses the best available (``keep.faces.detect.default_detector``).
        faces: where the face of the output is located; see ``IDS``.
    """

    needs_truth, first = False, 1

    def __init__(
        self,
        network: Annotated[Any, IDENTITIES],
        detector: Annotated[Any, DETECTORS] | None = None,
        faces: FacesOf = "truth",
    ) -> None:
        self.network, self.detector = network, detector or default_detector()
        self.faces: FacesOf = faces
        self.name, self.higher_is_better = f"VIDD ({network.name})", False

    def describe(self) -> str:
        return f"{super().describe()} {self.network.name}; {describe_faces(self.detector, self.faces)}."

    def measure(self, output: Clip, target: Clip) -> np.ndarray:
        found = embeddings(output, face_clip(output, target, self.faces), self.network, self.detector)
        return np.concatenate([[np.nan], np.linalg.norm(np.diff(found, axis=0), axis=1)])


def embeddings(clip: Clip, located_in: Clip, network: Any, detector: Any) -> np.ndarray:
    """Identity of the face in each frame: float64 (T, D), of length one if the network's measure is the cosine.

    Args:
        clip: the frames.
        located_in: the clip in which the faces are located; NaN rows for frames without a face.
        network: one of ``IDENTITIES``.
        detector: one of ``DETECTORS``.

    Raises:
        UserError: ``located_in`` has no face at all.
    """
    _, points = find_faces(located_in, detector)

    def compute() -> np.ndarray:
        found = network.to(clip.frames.device)(clip.images, points).astype(np.float64)
        return found / np.linalg.norm(found, axis=1, keepdims=True) if network.measure == "cosine" else found

    other = None if located_in is clip else located_in
    return clip.once(("identity", network, detector, other), compute)
