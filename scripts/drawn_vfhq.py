"""A small data set of drawn faces in VFHQ's layout, and files of random networks, for rehearsals."""

from pathlib import Path

import cv2
import numpy as np
import torch
from torchvision.models import vgg16

from keep.faces.align import TEMPLATE_512
from keep.flow.gmflow import GMFlow


def draw_vfhq(root: Path, clips: int, frames: int, side: int, seed: int = 0) -> None:
    """Write moving drawn faces as VFHQ is laid out: ``train/CLIP/00000000.png``, ``val/…`` and ``landmarks/CLIP.txt``.

    Args:
        root: the folder to fill.
        clips: clips of ``train``; ``val`` has one more.
        frames: of each clip.
        side: of a frame, in pixels.
        seed: of looks and motion.
    """
    for n in range(clips + 1):
        name = f"Clip+drawn+P{n}+C0+F0-{frames - 1}"
        folder = root / ("val" if n == clips else "train") / name
        folder.mkdir(parents=True)
        (root / "landmarks").mkdir(exist_ok=True)
        rng = np.random.default_rng([seed, n])
        skin, hair, wall = (
            rng.integers((150, 100, 90), (240, 190, 170)),
            rng.integers(20, 90, 3),
            rng.integers(60, 220, 3),
        )
        rows = []
        for t in range(frames):
            to_frame = motion(t / frames, n, side)
            image = draw_face(to_frame, side, skin, hair, wall, open_mouth=0.5 + 0.5 * np.sin(0.7 * t + n))
            cv2.imwrite(str(folder / f"{t:08d}.png"), image[..., ::-1])
            points = TEMPLATE_512 @ to_frame[:, :2].T + to_frame[:, 2]
            rows.append(f"{t:08d}.png {' '.join(f'{v:.3f}' for v in points.ravel())}\n")
        (root / "landmarks" / f"{name}.txt").write_text("".join(rows), encoding="utf-8")


def motion(time: float, phase: float, side: int) -> np.ndarray:
    """The similarity (2, 3) from the 512×512 face template to a frame of ``side`` pixels at a time in [0, 1]."""
    angle = 0.15 * np.sin(6 * time + phase)
    scale = side / 512 * (0.8 + 0.08 * np.sin(4 * time + 2 * phase))
    matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift = side * (0.5 + 0.06 * np.array([np.cos(5 * time + phase), np.sin(3 * time + phase)]))
    return np.column_stack([matrix, shift - matrix @ (256, 300)])


def draw_face(
    to_frame: np.ndarray, side: int, skin: np.ndarray, hair: np.ndarray, wall: np.ndarray, open_mouth: float
) -> np.ndarray:
    """A frame, uint8 RGB (side, side, 3), with a face whose five points are the template's.

    Args:
        to_frame: similarity from the 512×512 template to the frame, (2, 3).
        side: of the frame, in pixels.
        skin: colour, RGB; likewise ``hair`` and ``wall``.
        wall: colour of the background.
        hair: colour of hair and brows.
        open_mouth: 0 (closed) to 1.
    """
    y, x = np.mgrid[:512, :512].astype(np.float32)
    face = np.empty((512, 512, 3), np.uint8)
    face[:] = (wall + 25 * np.sin(x / 40)[..., None] * np.cos(y / 55)[..., None]).clip(0, 255)
    colour = [tuple(int(v) for v in c) for c in (hair, skin, 0.6 * skin)]
    cv2.ellipse(face, (256, 240), (150, 190), 0, 0, 360, colour[0], -1, cv2.LINE_AA)
    cv2.ellipse(face, (256, 290), (125, 165), 0, 0, 360, colour[1], -1, cv2.LINE_AA)
    left, right, nose, *mouth = (tuple(int(v) for v in p.round()) for p in TEMPLATE_512)
    for eye in (left, right):
        cv2.ellipse(face, eye, (28, 14), 0, 0, 360, (245, 245, 245), -1, cv2.LINE_AA)
        cv2.circle(face, eye, 11, (50, 40, 30), -1, cv2.LINE_AA)
        cv2.line(face, (eye[0] - 30, eye[1] - 32), (eye[0] + 30, eye[1] - 36), colour[0], 8, cv2.LINE_AA)
    cv2.line(face, (nose[0], nose[1] - 60), nose, colour[2], 8, cv2.LINE_AA)
    cv2.ellipse(face, nose, (22, 10), 0, 0, 180, colour[2], -1, cv2.LINE_AA)
    centre = ((mouth[0][0] + mouth[1][0]) // 2, (mouth[0][1] + mouth[1][1]) // 2)
    width, height = (mouth[1][0] - mouth[0][0]) // 2, 8 + round(18 * open_mouth)
    cv2.ellipse(face, centre, (width, height), 0, 0, 360, (150, 60, 65), -1, cv2.LINE_AA)
    return cv2.warpAffine(face, to_frame, (side, side), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT_101)


def write_random_networks(folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """Files of GMFlow and of VGG16's features with random weights, as their authors lay them out.

    Returns:
        the files of GMFlow and of VGG16.
    """
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / "gmflow_random.pth", folder / "vgg16_random.pth"
    torch.save({"model": GMFlow(random_weights=True).state_dict()}, files[0])
    with torch.device("meta"):  # the classifier, nine tenths of the network, is not made
        features = vgg16(weights=None).features
    features.to_empty(device="cpu")
    for module in features.modules():
        if isinstance(module, torch.nn.Conv2d):
            assert module.bias is not None
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            torch.nn.init.zeros_(module.bias)
    torch.save({f"features.{k}": v for k, v in features.state_dict().items()}, files[1])
    return files
