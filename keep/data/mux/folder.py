"""Reads a folder of images as a video, and writes one."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from keep.data.mux.colours import Colours
from keep.data.mux.layout import PLAIN, Layout, layout_of_image
from keep.data.mux.source import TimedFrame
from keep.utils.errors import UserError
from keep.utils.io import AtomicWrite, remove_leftovers

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
DEEP_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".webp"})  # may have 16 bits, alpha, or no chroma
RATES = (0.01, 1000)  # frames a second


class FrameFolder:
    """The images of a folder as a video, in the natural order of their names. Attributes as in :class:`VideoSource`.

    Args:
        path: the folder.
        fps: frame rate of the video.

    Raises:
        UserError: no such folder, no readable image in it, or a frame rate out of range.
    """

    rotation, mirrored, colours, pixel_aspect, display_aspect, start = 0, False, Colours(), None, 1.0, Fraction(0)
    tags: Mapping[str, str] = {}
    light, interlaced, keeps_fields, doubled = "", False, False, False

    def __init__(self, path: str | Path, fps: Fraction | float = 25) -> None:
        self.path = Path(path)
        self.files = list_images(self.path)
        if not self.files:
            raise UserError(f"{path}: contains no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
        if not RATES[0] <= fps <= RATES[1]:
            raise UserError(f"{path}: the frame rate must be from {RATES[0]:g} to {RATES[1]:g}, not {fps:g}")
        self.fps = Fraction(fps).limit_denominator(100_000)
        self.time_base = 1 / self.fps
        self.expected, self.lost, self.damaged, self.jumps = len(self.files), 0, 0, 0
        self.resized: Counter[tuple[int, int]] = Counter()
        first = next((image for image in map(_read_image, self.files) if image is not None), None)
        if first is None:
            raise UserError(f"{path}: none of its images can be read")
        self.layout = layout_of_image(first)
        self.height, self.width = first.shape[:2]

    def __iter__(self) -> Iterator[TimedFrame]:
        self.lost = index = 0
        for file in self.files:
            image = _read_image(file)
            if image is None:
                self.lost += 1
                continue
            if image.shape[:2] != (self.height, self.width):
                raise UserError(f"{file}: is {image.shape[1]}×{image.shape[0]}, the others {self.width}×{self.height}")
            given = in_layout(image, self.layout)
            deep = None if self.layout.plain else partial(np.copy, given)
            yield TimedFrame(index, in_layout(image, PLAIN), index, 1, file.stem, deep)
            index += 1

    def count(self) -> int:
        """As :meth:`VideoSource.count`."""
        return self.expected

    def from_display(self, image: np.ndarray) -> np.ndarray:
        """As :meth:`VideoSource.from_display`."""
        return image if self.layout.bits == 8 else image.astype(np.uint16) * 257


class FrameWriter:
    """Writes frames as PNG files into a new folder, atomically. Has the interface of :class:`VideoWriter`.

    Args:
        path: the folder; it must be new or empty.
        layout: grey images are stored without chroma.

    Raises:
        UserError: the folder is not empty, or cannot be created.
    """

    refused = 0  # packets of other streams; there are none

    def __init__(self, path: str | Path, layout: Layout = PLAIN) -> None:
        self.path, self.layout = Path(path), layout
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UserError(f"{path}: exists and is not empty; name a new or an empty folder for the frames")
        remove_leftovers(self.path)
        self._folder = AtomicWrite(self.path)
        self._folder.temporary.mkdir(parents=True)

    @property
    def temporary(self) -> Path:
        """As :attr:`VideoWriter.temporary`."""
        return self._folder.temporary

    def check(self) -> None:
        """As :meth:`VideoWriter.check`; the constructor has checked already."""
        self._folder.discard()

    def __enter__(self) -> "FrameWriter":
        return self

    def write(self, image: np.ndarray, frame: TimedFrame) -> None:
        """Write ``image``, uint8 or uint16 (H, W, 3 or 4) RGB, under the name or number of ``frame``."""
        file = self._folder.temporary / f"{frame.name or f'{frame.index:06d}'}.png"
        try:
            image = image[..., 0] if self.layout.gray else image[..., [2, 1, 0, 3][: image.shape[2]]]
            file.write_bytes(cv2.imencode(".png", np.ascontiguousarray(image))[1].tobytes())
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {error.strerror or error}") from error

    def finish(self) -> None:
        """As :meth:`VideoWriter.finish`; every file is complete already."""

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            if kind is None:
                if self.path.is_dir():
                    self.path.rmdir()
                self._folder.commit()
        finally:
            self._folder.discard()


def list_images(folder: Path) -> list[Path]:
    """The images of a folder; ``frame_2`` comes before ``frame_10``."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    images = [f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith(".")]
    return sorted(images, key=lambda f: [int(s) if s.isdigit() else s.lower() for s in re.split(r"(\d+)", f.name)])


def _read_image(path: Path) -> np.ndarray | None:
    """uint8 or uint16: (H, W) grey, (H, W, 3) RGB or (H, W, 4) with alpha; None if it cannot be read."""
    data = np.frombuffer(path.read_bytes(), np.uint8)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if path.suffix.lower() in DEEP_SUFFIXES else None
        if image is None or image.dtype not in (np.uint8, np.uint16) or (image.ndim == 3 and image.shape[2] == 2):
            image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error:  # an empty file
        return None
    if image is None or image.ndim == 2:
        return image
    return np.ascontiguousarray(image[..., [2, 1, 0, 3][: image.shape[2]]])


def in_layout(image: np.ndarray, layout: Layout) -> np.ndarray:
    """An image of any bits and channels with those of ``layout``: (H, W, 3), or (H, W, 4) with alpha."""
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    if image.dtype != layout.dtype:
        image = image.astype(np.uint16) * 257 if layout.bits > 8 else np.rint(image / 257).astype(np.uint8)
    if layout.alpha and image.shape[2] == 3:
        return np.dstack([image, np.full(image.shape[:2], np.iinfo(image.dtype).max, image.dtype)])
    return image if layout.alpha else np.ascontiguousarray(image[..., :3])
