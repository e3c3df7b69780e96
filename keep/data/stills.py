"""Clips from photographs, with the motion of a hand-held camera, to train networks that need motion."""

import cv2
import numpy as np

# Standard deviations of the pose at the centre of a clip, and of its change from frame to frame.
POSE = {"shift": 0.02, "zoom": 0.03, "turn": 2.0}  # shares of the side, log of the scale, degrees
SPEED = {"shift": 0.006, "zoom": 0.003, "turn": 0.3}


def moving(image: np.ndarray, rng: np.random.Generator, count: int, step: int = 1) -> np.ndarray:
    """A clip of one image that drifts, turns and zooms at constant speed.

    The pose at frame t is p + (t - (count - 1) / 2) · step · v, with p and v drawn once from normal distributions:
    shift, logarithm of the scale, and angle. Beyond its border the image is mirrored.

    Args:
        image: uint8 (H, W, 3).
        rng: draws p and v.
        count: number of frames.
        step: frame interval; it multiplies the motion from one frame to the next.

    Returns:
        uint8 (count, H, W, 3).
    """
    height, width = image.shape[:2]
    pose, speed = (
        np.array([*rng.normal(0, s["shift"] * width, 2), rng.normal(0, s["zoom"]), rng.normal(0, s["turn"])])
        for s in (POSE, SPEED)
    )
    frames = []
    for t in range(count):
        x, y, zoom, turn = pose + (t - (count - 1) / 2) * step * speed
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), turn, float(np.exp(zoom)))
        matrix[:, 2] += (x, y)
        frames.append(
            cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
        )
    return np.stack(frames)
