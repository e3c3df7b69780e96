"""Pictures of clips: frames of comparison videos, contact sheets, image files.

Frames are uint8 RGB numpy arrays, clips (T, H, W, 3).
"""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from keep.utils.errors import UserError
from keep.utils.io import write_file
from keep.utils.style import DARK, LIGHT, STYLE

MIN_PANEL = 256  # px: the narrowest panel whose caption is easy to read
GAP = 6  # px between panels


def side_by_side(panels: Mapping[str, np.ndarray], scale: int = 1) -> Iterator[np.ndarray]:
    """Frames of a comparison video: the clips side by side, each below its caption.

    Args:
        panels: caption → clip, uint8 RGB (T, H, W, 3), all of one length. A clip smaller than the largest is
            enlarged to it by nearest neighbour, so that a low-resolution input shows its own pixels.
        scale: enlarge everything at least this many times (bicubic). Panels narrower than 256 px are always
            enlarged to that width.

    Returns:
        An iterator over T uint8 RGB frames. Width and height are even, as H.264 in yuv420p requires.

    Raises:
        UserError: before the first frame, for no panels, wrong arrays, or clips of different lengths.
    """
    height, width = check_clips(panels)
    lengths = {name: len(clip) for name, clip in panels.items()}
    if len(set(lengths.values())) > 1:
        raise UserError(f"side_by_side: clips differ in length: {lengths}; cut them to the same frames first")
    scale = max(scale, math.ceil(MIN_PANEL / width))
    size = (height * scale, width * scale)
    bar = max(36, size[1] // 14)
    captions = [_text(name, size[1], bar, LIGHT, DARK) for name in panels]

    def frames() -> Iterator[np.ndarray]:
        for images in zip(*panels.values(), strict=True):
            columns = [
                np.concatenate([caption, _enlarge(_fit(image, height, width), size, smooth=True)])
                for caption, image in zip(captions, images, strict=True)
            ]
            yield _pad_to_even(_join(columns, axis=1, colour=DARK))

    return frames()


def contact_sheet(
    clips: Mapping[str, np.ndarray], path: str | Path, columns: int = 6, times: Sequence[int] | None = None
) -> None:
    """A grid of frames as an image file: one clip a row with its label at the left, one time a column.

    Args:
        clips: row label → clip, uint8 RGB (T, H, W, 3); sizes as in :func:`side_by_side`.
        path: the file to write, e.g. ``sheet.png``.
        columns: how many frames, spread evenly over the shortest clip.
        times: frame indices from 0, instead of ``columns``.

    Raises:
        UserError: for no clips, wrong arrays, or a time outside a clip.
    """
    height, width = check_clips(clips)
    length = min(len(clip) for clip in clips.values())
    times = spread(length, columns) if times is None else times
    if not times or min(times) < 0 or max(times) >= length:
        raise UserError(f"contact_sheet: times {list(times)} must lie in 0…{length - 1}, the frames all clips have")
    scale = max(1, math.ceil(160 / width))
    size = (height * scale, width * scale)
    label_width, bar = max(128, size[1] // 2), max(32, size[1] // 8)

    corner = _text("", label_width, bar, DARK, LIGHT)
    grid = [_join([corner, *(_text(f"frame {t + 1}", size[1], bar, DARK, LIGHT) for t in times)], axis=1)]
    for label, clip in clips.items():
        cells = [_enlarge(_fit(clip[t], height, width), size, smooth=True) for t in times]
        label = "\n".join(textwrap.wrap(label, 14))
        grid.append(_join([_text(label, label_width, size[0], DARK, LIGHT, size=label_width / 8), *cells], axis=1))
    sheet = _join(grid, axis=0)
    sheet = np.pad(sheet, ((GAP, 2 * GAP), (GAP, 2 * GAP), (0, 0)), constant_values=255)
    write_file(path, encode_image(sheet, suffix_of(path)))


def check_clips(clips: Mapping[str, np.ndarray]) -> tuple[int, int]:
    """The largest height and width of ``clips``.

    Raises:
        UserError: no clips, or an array that is not a clip.
    """
    if not clips:
        raise UserError("no clips were given; give at least one")
    for name, clip in clips.items():
        shape, dtype = getattr(clip, "shape", ()), getattr(clip, "dtype", type(clip).__name__)
        if len(shape) != 4 or shape[-1] != 3 or 0 in shape or dtype != np.uint8:
            raise UserError(f"clip {name!r}: expected uint8 RGB of shape (T, H, W, 3), got {dtype} {tuple(shape)}")
    return max(c.shape[1] for c in clips.values()), max(c.shape[2] for c in clips.values())


def spread(length: int, count: int) -> list[int]:
    """``count`` indices spread evenly over ``range(length)``, both ends included; all of them where there are fewer."""
    return sorted({round(float(t)) for t in np.linspace(0, length - 1, max(1, min(count, length)))})


def _fit(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W, 3) → (height, width, 3) by nearest neighbour; unchanged where it has that size."""
    return _enlarge(image, (height, width), smooth=False)


def _enlarge(image: np.ndarray, size: tuple[int, int], smooth: bool) -> np.ndarray:
    if image.shape[:2] == size:
        return image
    import cv2

    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_CUBIC if smooth else cv2.INTER_NEAREST)


def _join(images: Sequence[np.ndarray], axis: int, colour: tuple[int, int, int] = LIGHT) -> np.ndarray:
    """``images`` in a row (axis 1) or a column (axis 0) with a gap of ``colour`` between them."""
    shape = list(images[0].shape)
    shape[axis] = GAP
    gap = np.full(shape, colour, dtype=np.uint8)
    parts = [part for image in images for part in (gap, image)][1:]
    return np.concatenate(parts, axis=axis)


def _pad_to_even(image: np.ndarray) -> np.ndarray:
    return np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), mode="edge")


@lru_cache(maxsize=256)  # captions are the same for every clip, and matplotlib is slow
def _text(
    text: str,
    width: int,
    height: int,
    colour: tuple[int, int, int],
    background: tuple[int, int, int],
    size: float | None = None,
) -> np.ndarray:
    """``text`` centred in an image (height, width, 3): ``size`` px high, or smaller to fit."""
    # matplotlib ships its own font: letters look the same on every machine, and any of Unicode can be drawn.
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor="#" + bytes(background).hex())
        canvas = FigureCanvasAgg(figure)
        points = (size or height * 0.5) * 72 / figure.dpi
        label = figure.text(
            0.5, 0.5, text, color="#" + bytes(colour).hex(), size=points, ha="center", va="center_baseline",
            parse_math=False,
        )  # fmt: skip
        room = 0.92 * width / max(1.0, label.get_window_extent().width)
        label.set_fontsize(points * min(1.0, room))
        canvas.draw()
        image = np.asarray(canvas.buffer_rgba())[..., :3]
    image = np.ascontiguousarray(image[:height, :width])
    image.setflags(write=False)
    return image


def suffix_of(path: str | Path) -> str:
    """The suffix without its dot; png where there is none."""
    return Path(path).suffix[1:] or "png"


def encode_image(image: np.ndarray, suffix: str) -> bytes:
    """uint8 RGB (H, W, 3) as an image file of that format (png, jpg, …)."""
    import cv2

    try:
        return cv2.imencode(f".{suffix}", np.ascontiguousarray(image[..., ::-1]))[1].tobytes()
    except cv2.error:
        raise UserError(f"unknown image format {suffix!r}; use .png or .jpg") from None
