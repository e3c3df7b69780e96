"""Where the faces of a clip are: found once, for all metrics and restorers."""

from functools import cache
from typing import Any, Literal

import numpy as np

from keep.metrics.base import Clip
from keep.utils.errors import UserError

FacesOf = Literal["truth", "own"]


def faces(clip: Clip, detector: Any) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (T, 4) and five points (T, 5, 2) of the clip's main face, pixels; NaN rows where there is none.

    Raises:
        UserError: no frame of the clip has a face.
    """
    from keep.faces.detect import largest_faces

    detector.to(clip.frames.device)
    boxes, points = clip.once(("faces", detector), lambda: largest_faces(detector, clip.images))
    if np.isnan(points).any(axis=(1, 2)).all():
        raise UserError(f"no face was found in the {clip.name} ({detector.name})")
    return boxes, points


def place(output: Clip, target: Clip, of: FacesOf) -> Clip:
    """The clip whose faces say where to look in ``output``."""
    return target if of == "truth" else output


def told(detector: Any, of: FacesOf) -> str:
    """For the report: who finds the faces, and where."""
    return (
        f"faces found by {detector.name}, {'those of the ground truth for both' if of == 'truth' else 'in each clip'}"
    )


@cache
def default_detector() -> Any:
    """:func:`keep.faces.detect.default_detector`, one for all metrics that name none."""
    from keep.faces import detect

    return detect.default_detector()
