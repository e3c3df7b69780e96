"""The copy that ``keep-data prepare --out`` makes: frames and landmarks at another size."""

import shutil
from pathlib import Path

import cv2
import numpy as np

from keep.data.images import by_number, read_images
from keep.data.tools.prepare_checks import is_frame
from keep.data.vfhq import read_landmarks
from keep.utils.io import AtomicWrite, remove_leftovers, write_file
from keep.utils.pictures import encode_image


def copy_clip(root: Path, landmarks: Path | None, out: Path, size: int, name: str) -> None:
    """Write the frames of a clip with the shorter side ``size``, and its landmarks in pixels of the new frames.

    A complete copy is skipped.
    """
    target = out / "frames" / name
    paths = sorted((p for p in (root / name).iterdir() if is_frame(p.name)), key=lambda p: by_number(p.name))
    if target.is_dir() and len(list(target.iterdir())) == len(paths):
        return
    shutil.rmtree(target, ignore_errors=True)
    remove_leftovers(target)
    with AtomicWrite(target) as unfinished:
        unfinished.mkdir(parents=True)
        height, width = 0, 0
        for path in paths:
            frame = read_images([path])[0]
            height, width = frame.shape[:2]
            write_file(unfinished / f"{path.stem}.png", encode_image(resize(frame, size), "png"))
        if landmarks is not None:
            points = read_landmarks(landmarks / f"{target.name}.txt", [p.name for p in paths], (height, width))
            scale = np.array(new_size(height, width, size)[::-1]) / (width, height)
            # Pixel centres are at whole numbers.
            points = (points + 0.5) * scale - 0.5
            rows = (" ".join(f"{v:.3f}" for v in face.ravel()) for face in points)
            lines = [f"{path.stem}.png {row}\n" for path, row in zip(paths, rows, strict=True)]
            write_file(out / "landmarks" / f"{target.name}.txt", "".join(lines))


def resize(frame: np.ndarray, size: int) -> np.ndarray:
    """The frame, uint8 (H, W, 3), with the shorter side ``size``."""
    height, width = new_size(frame.shape[0], frame.shape[1], size)
    if (height, width) == frame.shape[:2]:
        return frame
    how = cv2.INTER_AREA if height < frame.shape[0] else cv2.INTER_CUBIC
    return cv2.resize(frame, (width, height), interpolation=how)


def new_size(height: int, width: int, size: int) -> tuple[int, int]:
    """(height, width) with the shorter side ``size``, both even."""
    scale = size / min(height, width)
    return 2 * round(height * scale / 2), 2 * round(width * scale / 2)
