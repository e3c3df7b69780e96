"""Faces of a clip: found once, for all metrics and restorers."""

from functools import cache
from typing import Any, Literal

import numpy as np

from keep.faces import detect
from keep.metrics.base import Clip
from keep.utils.errors import UserError

FacesOf = Literal["truth", "own"]


def find_faces(clip: Clip, detector: Any) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (T, 4) and five points (T, 5, 2) of the clip's main face, in pixels; NaN rows for frames without a face.

    Raises:
        UserError: no frame of the clip has a face.
    """
    detector.to(clip.frames.device)
    boxes, points = clip.once(("faces", detector), lambda: detect.largest_faces(detector, clip.images))
    if np.isnan(points).any(axis=(1, 2)).all():
        raise UserError(f"no face was found in the {clip.name} ({detector.name})")
    return boxes, points


def face_clip(output: Clip, target: Clip, faces: FacesOf) -> Clip:
    """The clip in which the faces of ``output`` are located."""
    return target if faces == "truth" else output


def describe_faces(detector: Any, faces: FacesOf) -> str:
    """For the report: which detector finds the faces, and in which clip."""
    where = "those of the ground truth for both" if faces == "truth" else "in each clip"
    return f"faces found by {detector.name}, {where}"


@cache
def default_detector() -> Any:
    """One :func:`keep.faces.detect.default_detector` for all metrics that name no detector."""
    return detect.default_detector()
