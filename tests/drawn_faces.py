"""Drawn faces: coloured discs, a detector and an identity network for them, and a network that records its input."""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from keep.data.mux import TimedFrame
from keep.faces.detect import Face

RED, GREEN = (220, 40, 40), (40, 210, 60)
DARK, BRIGHT = (30, 30, 40), (200, 200, 215)
POINTS = np.array([(-0.4, -0.3), (0.4, -0.3), (0, 0.1), (-0.3, 0.5), (0.3, 0.5)], np.float32)


def draw(
    people: Sequence[tuple[tuple[int, int, int], float, float, int]],
    background: tuple[int, int, int] = DARK,
    size: tuple[int, int] = (120, 240),
) -> np.ndarray:
    """uint8 (*size, 3): a disc for each (colour, x, y, radius), the last one in front."""
    image = np.full((*size, 3), background, np.uint8)
    for colour, x, y, radius in people:
        cv2.circle(image, (round(x), round(y)), radius, colour, -1)
    return image


def crossing(frames: int = 40, cut: bool = True) -> np.ndarray:
    """Two people pass each other, Red in front; after the cut again, at another place and in other light."""
    clip = []
    for background in (DARK, BRIGHT)[: 1 + cut]:
        for t in range(frames):
            x = 40 + 160 * t / (frames - 1)
            a, b = (x, 240 - x) if background == DARK else (240 - x, x)
            y = 60 if background == DARK else 50
            clip.append(draw([(GREEN, b, y + 3, 18), (RED, a, y - 3, 18)], background))
    return np.stack(clip)


class Discs:
    """Detects discs of the two colours that are mostly visible."""

    name = "discs"

    def to(self, device) -> "Discs":
        return self

    def __call__(self, frame: np.ndarray) -> list[Face]:
        faces = []
        for colour in (RED, GREEN):
            near = (np.abs(frame.astype(int) - colour).sum(-1) < 90).astype(np.uint8)
            count, _, stats, centres = cv2.connectedComponentsWithStats(near)
            for (x, y, w, h, area), centre in zip(stats[1:count], centres[1:count], strict=True):
                if area > 0.6 * max(w, h) ** 2:
                    radius = max(w, h) / 2
                    box = np.array([x, y, x + w, y + h], np.float32)
                    faces.append(Face(box, (centre + POINTS * radius).astype(np.float32), 0.9))
        return sorted(faces, key=lambda face: -face.area)


class Colour:
    """Identifies people by the colour at their nose."""

    name, measure = "colour", "l2"

    def to(self, device) -> "Colour":
        return self

    def __call__(self, frames: np.ndarray, points: np.ndarray) -> np.ndarray:
        x, y = points[:, 2].round().astype(int).T
        height, width = frames.shape[1:3]
        looks = frames[range(len(frames)), y.clip(0, height - 1), x.clip(0, width - 1)]
        return (looks / 128).astype(np.float32)


class Recorder:
    """Returns its input and records it: ``clips[i]`` (T, B, S, S, 3) of the i-th recurrence."""

    def __init__(self, size: int = 32, window: int = 8) -> None:
        self.size, self.window = size, window
        self._clips: list[list[np.ndarray]] = []

    def begin(self):
        clip: list[np.ndarray] = []
        self._clips.append(clip)

        def restore(crops: np.ndarray) -> np.ndarray:
            assert crops.dtype == np.uint8
            assert 1 <= len(crops) <= self.window
            clip.append(crops)
            return crops.copy()

        return restore

    @property
    def clips(self) -> list[np.ndarray]:
        return [np.concatenate(clip) for clip in self._clips]


def timed(clip: np.ndarray) -> Iterator[TimedFrame]:
    for i, image in enumerate(clip):
        yield TimedFrame(i, image, i, 1)
