"""Detects shot cuts by several detectors in one pass."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from keep.faces.shots import ShotDetector
from keep.utils.errors import UserError


class ShotFinder:
    """Cuts by PySceneDetect (content and adaptive detector) and by our own detector, in one pass.

    A missed cut spoils a clip; a false one only shortens it. So a cut of any detector counts.
    """

    def __init__(self, fps: float, scenedetect: bool, builtin: bool) -> None:
        self.fps, self.cuts, self.last = fps, set(), -1
        self.own = ShotDetector() if builtin else None
        self.others: list[Any] = []
        if scenedetect:
            from scenedetect import FrameTimecode
            from scenedetect.detectors import AdaptiveDetector, ContentDetector

            self.others = [ContentDetector(min_scene_len=1), AdaptiveDetector(min_scene_len=1)]
            self.timecode = FrameTimecode

    def update(self, t: int, frame: np.ndarray) -> None:
        self.last = t
        if self.own and self.own.update(frame):
            self.cuts.add(t)
        if self.others:
            height = max(1, round(256 * frame.shape[0] / frame.shape[1]))
            small = np.ascontiguousarray(cv2.resize(frame, (256, height), interpolation=cv2.INTER_AREA)[..., ::-1])
            now = self.timecode(t, self.fps)
            self.cuts.update(cut.frame_num for other in self.others for cut in other.process_frame(now, small))

    def finish(self) -> list[int]:
        """First frames of new shots, sorted."""
        if self.others and self.last >= 0:
            end = self.timecode(self.last, self.fps)
            self.cuts.update(cut.frame_num for other in self.others for cut in other.post_process(end))
        return sorted(self.cuts - {0})


def shot_finder(which: str) -> Callable[[float], "ShotFinder"]:
    """The finder of ``which`` detectors, for a video of a given frame rate."""
    if which == "builtin":
        return lambda fps: ShotFinder(fps, scenedetect=False, builtin=True)
    try:
        import scenedetect  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"PySceneDetect cannot be imported ({error}): pip install keep-vfsr[collect], or use --shots builtin"
        ) from error
    return lambda fps: ShotFinder(fps, scenedetect=True, builtin=which == "both")
