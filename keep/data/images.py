"""Frame images: reading, square cuts, tone curves. All are uint8 RGB."""

import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from keep.utils.errors import UserError
from keep.utils.opencv import quiet_opencv

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})


def read_images(paths: Sequence[Path]) -> np.ndarray:
    """Images of one size as uint8 (T, H, W, 3) RGB.

    Raises:
        UserError: one cannot be read, or differs in size from the first.
    """
    frames: list[np.ndarray] = []
    for path in paths:
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None
        frames.append(decode_image(data, str(path)))
        check_same_size(frames, path, paths[0].name)
    return np.stack(frames)


def decode_image(data: bytes, name: str) -> np.ndarray:
    """The content of an image file as uint8 (H, W, 3) RGB; ``name`` is for messages.

    Raises:
        UserError: it is not an image.
    """
    # libpng would print a message about a PNG without its end.
    complete = bool(data) and (not data.startswith(b"\x89PNG") or b"IEND" in data)
    with quiet_opencv():
        # imdecode, not imread: imread fills a truncated JPEG with grey without an error.
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if complete else None
    if image is None:
        raise UserError(f"{name}: not an image, or a damaged one")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def check_same_size(frames: Sequence[np.ndarray], name: object, first: str) -> None:
    """Raise UserError if the last of ``frames`` differs in size from the first."""
    if frames[-1].shape != frames[0].shape:
        size, other = (f"{f.shape[1]}x{f.shape[0]}" for f in (frames[-1], frames[0]))
        raise UserError(f"{name}: is {size}, but {first} of the same clip is {other}")


def square_resize(frames: np.ndarray, size: int) -> np.ndarray:
    """uint8 (T, H, W, 3) → its central square, resized to (T, size, size, 3); area down, bicubic up."""
    height, width = frames.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    frames = np.ascontiguousarray(frames[:, top : top + side, left : left + side])
    if side == size:
        return frames
    how = cv2.INTER_AREA if size < side else cv2.INTER_CUBIC
    return np.stack([cv2.resize(frame, (size, size), interpolation=how) for frame in frames])


def tone_curves(frames: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    """Map each channel c of uint8 (T, H, W, 3), x in [0, 1], to x^γ_c; ``gamma`` is (3,)."""
    levels = np.linspace(0, 1, 256)[:, None] ** gamma
    table = np.rint(levels * 255).astype(np.uint8)
    return np.stack([table[:, c][frames[..., c]] for c in range(3)], axis=-1)


def by_number(name: str) -> list[tuple[bool, int, str]]:
    """Sort key that puts frame 2 before frame 10."""
    return [(s.isdecimal(), int(s) if s.isdecimal() else 0, s) for s in re.split(r"(\d+)", name)]
