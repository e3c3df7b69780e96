"""Pictures and a record of what the error model says of the faces of a video."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from keep.archs.confidence import LIMITS, TARGETS
from keep.faces.align import scale_of
from keep.faces.paste import face_mask, from_zoomed, paste
from keep.inference.video.network import Judged
from keep.inference.video.pipeline import RestoredFace, WaitingFrame

OBSERVED = 0.5
"""A block is observed if it shows what was there with at least this probability; else it is invented."""
WARN_BELOW = 0.05
"""A face of which less than this share is observed may be somebody else's."""
FULL = 24.0  # grey levels: the error with the brightest colour
DIM = 0.35  # brightness of what is no face, in a map
STRIPES = 12  # px of the output from one line of the hatching to the next
HATCH = (255, 96, 0)


def error_frame(image: np.ndarray, waiting: WaitingFrame, scale: float) -> np.ndarray:
    """The expected error of the faces as colours, black (0) to yellow (24 grey levels or more), on a dim grey frame.

    Args:
        image: the output's frame, (H, W, 3 or 4), of any depth.
        waiting: its faces.
        scale: output size over input size.

    Returns:
        uint8 (H, W, 3).
    """
    grey = cv2.cvtColor(eight_bits(image), cv2.COLOR_RGB2GRAY).astype(np.float32) * DIM
    canvas = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    for face in waiting.faces:
        if face.judged is not None:
            level = np.rint(np.clip(face.judged.error / FULL, 0, 1) * 255).astype(np.uint8)
            colours = cv2.cvtColor(cv2.applyColorMap(_enlarged(level, face), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
            _put(canvas, face, colours, face_mask(colours.shape[0]), scale)
    return canvas


def overlay_frame(image: np.ndarray, waiting: WaitingFrame, scale: float) -> np.ndarray:
    """The output's frame, hatched where a face is mostly invented. Arguments and result as of :func:`error_frame`."""
    canvas = eight_bits(image)
    for face in waiting.faces:
        if face.judged is None:
            continue
        size = face.given.shape[0]
        invented = cv2.resize((face.judged.confidence < OBSERVED).astype(np.float32), (size, size))
        period = STRIPES if face.matrix is None else max(4, round(STRIPES * scale_of(face.matrix) / scale))
        rows, columns = np.mgrid[:size, :size]
        lines = ((rows + columns) % period < max(1, period // 4)).astype(np.float32)
        mask = (face_mask(size) > 0.5) * np.float32(0.85) * (invented > 0.5) * lines
        _put(canvas, face, np.full((size, size, 3), HATCH, np.uint8), mask.astype(np.float32), scale)
    return canvas


def eight_bits(image: np.ndarray) -> np.ndarray:
    """A copy with 8 bits and three channels; deeper values are scaled, not tone-mapped."""
    image = image[..., :3]
    return np.ascontiguousarray(image) + 0 if image.dtype == np.uint8 else (image >> 8).astype(np.uint8)


def _enlarged(blocks: np.ndarray, face: RestoredFace) -> np.ndarray:
    side = face.given.shape[0]
    return cv2.resize(blocks, (side, side), interpolation=cv2.INTER_NEAREST)


def _put(canvas: np.ndarray, face: RestoredFace, crop: np.ndarray, mask: np.ndarray, scale: float) -> None:
    if face.matrix is not None:
        paste(canvas, crop, mask, from_zoomed(face.matrix, scale))
        return
    canvas[:] = cv2.blendLinear(crop, canvas.copy(), mask, 1 - mask)


def observed_share(judged: Judged) -> float:
    """The share of the face, without the corners of its crop, that is observed."""
    inside = cv2.resize(face_mask(256), judged.confidence.shape[::-1], interpolation=cv2.INTER_AREA) > 0.5
    return float((judged.confidence[inside] >= OBSERVED).mean()) if inside.any() else 0.0


class FaceRecord:
    """Collects, for each track and frame, how much of the face is observed."""

    def __init__(self) -> None:
        self.tracks: dict[int, list[dict[str, Any]]] = {}

    def add(self, waiting: WaitingFrame, time: float) -> None:
        """The faces of a frame; ``time`` in seconds."""
        for face in waiting.faces:
            if face.judged is None:
                continue
            side = face.given.shape[0]
            self.tracks.setdefault(face.track, []).append(
                {
                    "frame": waiting.frame.index,
                    "time": round(time, 4),
                    "observed": round(observed_share(face.judged), 3),
                    "error": round(float(face.judged.error.mean()), 2),
                    "size": None if face.matrix is None else round(side / scale_of(face.matrix), 1),
                }
            )

    def plain(self) -> list[dict[str, Any]]:
        """The record of each track as plain data."""
        return [_track(number, frames) for number, frames in sorted(self.tracks.items())]

    def notes(self) -> list[str]:
        """What the user should know of each track that may show somebody else."""
        doubtful = [track["track"] for track in self.plain() if track["identity_warning"]]
        if not doubtful:
            return []
        numbers = ", ".join(map(str, doubtful))
        return [f"track {numbers}: hardly anything of the face is observed; it may look like somebody else"]


def _track(number: int, frames: Sequence[dict[str, Any]]) -> dict[str, Any]:
    observed = [frame["observed"] for frame in frames]
    return {
        "track": number,
        "observed": round(float(np.mean(observed)), 3),
        "identity_warning": float(np.mean(observed)) < WARN_BELOW,
        "frames": list(frames),
    }


def explained(level: float) -> dict[str, Any]:
    """What the numbers of a record mean."""
    return {
        "observed": "share of the face's blocks of 8x8 pixels that show what was there with a probability of at least "
        f"{OBSERVED:g}: mean error of luma up to {LIMITS[0]:g} of 255 and {TARGETS[1]} distance up to {LIMITS[1]:g}",
        "error": "expected mean error of luma over the crop, in grey levels of 255",
        "size": "side of the face's crop in the input, in pixels; null if the frame is the crop",
        "identity_warning": f"less than {WARN_BELOW:g} of the face is observed: it may look like somebody else",
        "interval_level": level,
        "cannot_know": "a plausible face of the wrong person is not recognised as wrong",
    }
