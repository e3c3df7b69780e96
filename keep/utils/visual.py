"""Pictures and tables of results: comparison videos, contact sheets, gain maps, loss curves.

Frames are uint8 RGB numpy arrays, clips (T, H, W, 3). Files appear whole or not at all: each is written under a
temporary name in its folder and then renamed.
"""

import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from keep.utils.errors import UserError
from keep.utils.io import write_file

MIN_PANEL = 256  # px: the narrowest panel whose caption is comfortably read
GAP = 6  # px between panels
DARK, LIGHT = (24, 26, 31), (255, 255, 255)
INK = "#22262e"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#5c5c5c")  # safe for colour-blind readers
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8f98",
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "grid.color": "#e4e6ea",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def side_by_side(panels: Mapping[str, np.ndarray], scale: int = 1) -> Iterator[np.ndarray]:
    """Frames of a comparison video: the clips next to each other, each under its caption.

    Args:
        panels: caption → clip, uint8 RGB (T, H, W, 3), all of one length. A clip smaller than the largest is
            enlarged to it by nearest neighbour, so that a low-resolution input shows its own pixels.
        scale: enlarge everything at least this many times (bicubic); panels narrower than 256 px are
            enlarged to reach that in any case.

    Returns:
        An iterator over T uint8 RGB frames. Width and height are even, as H.264 in yuv420p demands.

    Raises:
        UserError: at once, for no panels, wrong arrays, or clips of different lengths.
    """
    height, width = _check_clips(panels)
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
    height, width = _check_clips(clips)
    length = min(len(clip) for clip in clips.values())
    times = _spread(length, columns) if times is None else times
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


def gain_figure(gains: np.ndarray, frames: np.ndarray, path: str | Path, columns: int = 6) -> None:
    """The Kalman gain over time: some frames, the gain map under each, and the mean gain of every frame.

    K as in Algorithm 1 of the supplement: ẑ⁺ = (1 − K)·ẑ⁻ + K·z̃, so 1 trusts the observation, 0 the prediction.

    Args:
        gains: (T, h, w) in [0, 1]; NaN where there is none, as for a first frame, which has no prediction.
        frames: uint8 RGB (T, H, W, 3).
        path: the figure to write; its suffix sets the format (png, pdf, svg).
        columns: how many frames to show, spread evenly.
    """
    _check_clips({"frames": frames})
    gains = np.asarray(gains, dtype=np.float64)
    if gains.ndim != 3 or len(gains) != len(frames):
        raise UserError(f"gain_figure: gains {gains.shape} must be (T, h, w) with T = {len(frames)}, a map for a frame")
    times = _spread(len(frames), columns)

    def draw(figure: Any) -> None:
        grid = figure.add_gridspec(3, len(times) + 1, width_ratios=[1] * len(times) + [0.07], height_ratios=[1, 1, 1.1])
        image = None
        for column, t in enumerate(times):
            top, middle = (figure.add_subplot(grid[row, column]) for row in (0, 1))
            top.imshow(frames[t])
            top.set_title(f"frame {t + 1}")
            image = middle.imshow(gains[t], vmin=0, vmax=1, cmap=_heat())
            if np.isnan(gains[t]).all():
                middle.text(0.5, 0.5, "no prediction", transform=middle.transAxes, ha="center", va="center", size=8)
            for axes, label in ((top, "frame"), (middle, "gain K")):
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
                if column == 0:
                    axes.set_ylabel(label, labelpad=8)
        bar = figure.colorbar(image, cax=figure.add_subplot(grid[1, len(times)]), ticks=[0, 0.5, 1])
        bar.outline.set_visible(False)
        _draw_gain_curve(figure.add_subplot(grid[2, : len(times)]), gains, times)
        figure.suptitle(
            "Kalman gain over time\nK = 1 trusts the observation, K = 0 the prediction", fontsize=12, linespacing=1.5
        )

    write_figure(path, draw, size=(1.42 * max(3, len(times)) + 1.0, 6.0))


def _draw_gain_curve(axes: Any, gains: np.ndarray, times: Sequence[int]) -> None:
    flat = gains.reshape(len(gains), -1)
    known = [t for t in range(len(flat)) if not np.isnan(flat[t]).all()]  # a frame without a gain has no percentile
    x = np.array(known) + 1
    mean = [np.nanmean(flat[t]) for t in known]
    low, high = ([np.nanpercentile(flat[t], q) for t in known] for q in (10, 90))
    axes.fill_between(x, low, high, color=PALETTE[0], alpha=0.18, linewidth=0, label="10–90 % of the tokens")
    axes.plot(x, mean, color=PALETTE[0], linewidth=1.8, label="mean")
    shown = [known.index(t) for t in times if t in known]
    axes.plot(x[shown], np.array(mean)[shown], "o", color=PALETTE[0], markersize=4.5, label="frames shown above")
    axes.set(xlabel="frame", ylabel="gain K", ylim=(-0.03, 1.03), yticks=[0, 0.25, 0.5, 0.75, 1])
    axes.set_xlim(0.5, len(gains) + 0.5)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y")
    axes.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), borderaxespad=0.2)


def loss_curves(series: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]], path: str | Path) -> None:
    """Training curves: a panel a stage, a line a term. The raw values are faint, their moving average is bold.

    Args:
        series: stage name → term → (steps, values). Values that are not finite are left out.
            The y axis is logarithmic where all values of a stage are positive.
        path: the figure to write; its suffix sets the format (png, pdf, svg).
    """
    if not series:
        raise UserError("loss_curves: nothing to draw; give at least one stage")
    terms = list(dict.fromkeys(term for stage in series.values() for term in stage))
    colours = {term: PALETTE[i % len(PALETTE)] for i, term in enumerate(terms)}  # a term keeps its colour in all panels
    dashes = {term: ("-", "--", ":")[i // len(PALETTE) % 3] for i, term in enumerate(terms)}
    columns = min(3, len(series))

    def draw(figure: Any) -> None:
        figure.set_layout_engine("constrained", wspace=0.06, hspace=0.08)
        rows = math.ceil(len(series) / columns)
        for i, (stage, lines) in enumerate(series.items()):
            axes = figure.add_subplot(rows, columns, i + 1)
            positive = True
            for term, (steps, values) in lines.items():
                x, y = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
                x, y = x[np.isfinite(y)], y[np.isfinite(y)]
                positive = positive and bool((y > 0).all())
                axes.plot(x, y, color=colours[term], alpha=0.22, linewidth=0.8)
                axes.plot(x, _moving_average(y), color=colours[term], linestyle=dashes[term], linewidth=1.8, label=term)
            if positive and any(len(values) for _, values in lines.values()):
                axes.set_yscale("log")
            axes.set(title=stage, xlabel="iteration", ylabel="loss" if i % columns == 0 else "")
            axes.grid(which="major")
            if lines:
                axes.legend(
                    ncols=min(3, len(lines)), loc="upper center", bbox_to_anchor=(0.5, -0.2), columnspacing=1.4,
                    handlelength=1.4,
                )  # fmt: skip

    write_figure(path, draw, size=(4.4 * columns, 3.9 * math.ceil(len(series) / columns)))


def markdown_table(
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, bool | None] | Sequence[str],
    digits: int | Mapping[str, int] = 4,
) -> str:
    """``rows`` as a Markdown table; the best value of each ranked column is marked with ``*``.

    Args:
        rows: one mapping a row, column name → text or number; an absent, None or NaN value shows as ``–``.
        columns: column name → whether larger is better (None: not ranked), or just the names.
        digits: decimals of a float, or of each column's (4 where it is not named).
    """
    header, body, ranked = _cells(rows, columns, digits)
    lines = [header, ["--:" if r else ":--" for r in ranked], *body]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def console_table(
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, bool | None] | Sequence[str],
    digits: int | Mapping[str, int] = 4,
) -> str:
    """The table of :func:`markdown_table`, aligned for a terminal."""
    header, body, ranked = _cells(rows, columns, digits)
    # Numbers align on the right, and a mark hangs out beyond them.
    table = [
        [c if c.endswith("*") or not r else c + " " for c, r in zip(line, ranked, strict=True)]
        for line in [header, *body]
    ]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, ranked, strict=True)).rstrip()
        for line in table
    ]
    lines.insert(1, "  ".join("─" * w for w in widths))
    return "\n".join(lines) + "\n"


def _cells(
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, bool | None] | Sequence[str],
    digits: int | Mapping[str, int],
) -> tuple[list[str], list[list[str]], list[bool]]:
    """Header, body and, for each column, whether it is a column of numbers."""
    directions = dict(columns) if isinstance(columns, Mapping) else dict.fromkeys(columns)
    header = [name + {True: " ↑", False: " ↓", None: ""}[better] for name, better in directions.items()]
    places = {name: digits if isinstance(digits, int) else digits.get(name, 4) for name in directions}
    body = [[_cell(row.get(name), places[name]) for name in directions] for row in rows]
    for j, (name, better) in enumerate(directions.items()):
        values = [row.get(name) for row in rows]
        numbers: list[Any] = [v for v in values if _is_number(v)]
        if better is not None and len(numbers) > 1:
            best = _cell(max(numbers) if better else min(numbers), places[name])
            for line in body:  # compared as shown: a tie in print is a tie
                line[j] += "*" if line[j] == best else ""
    numeric = [
        better is not None or any(_is_number(row.get(name)) for row in rows) for name, better in directions.items()
    ]
    return header, body, numeric


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and not np.isnan(value)


def _cell(value: Any, digits: int) -> str:
    if isinstance(value, float | np.floating):
        return "–" if np.isnan(value) else f"{value:.{digits}f}"
    return "–" if value is None else str(value)


def _check_clips(clips: Mapping[str, np.ndarray]) -> tuple[int, int]:
    """The largest height and width of ``clips``, after a look at each."""
    if not clips:
        raise UserError("no clips were given; give at least one")
    for name, clip in clips.items():
        shape, dtype = getattr(clip, "shape", ()), getattr(clip, "dtype", type(clip).__name__)
        if len(shape) != 4 or shape[-1] != 3 or 0 in shape or dtype != np.uint8:
            raise UserError(f"clip {name!r}: expected uint8 RGB of shape (T, H, W, 3), got {dtype} {tuple(shape)}")
    return max(c.shape[1] for c in clips.values()), max(c.shape[2] for c in clips.values())


def _spread(length: int, count: int) -> list[int]:
    """``count`` indices spread evenly over ``range(length)``, both ends included; all of them if fewer."""
    return sorted({round(float(t)) for t in np.linspace(0, length - 1, max(1, min(count, length)))})


def _fit(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W, 3) → (height, width, 3) by nearest neighbour; untouched when it has that size."""
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
    """``text`` centred in an image (height, width, 3): ``size`` px high, or less where it would not fit."""
    # matplotlib brings its own font, so letters look the same everywhere and may be any of Unicode.
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


def _heat() -> Any:
    from matplotlib import colormaps

    return colormaps["viridis"].with_extremes(bad="#e4e6ea")


def _moving_average(values: np.ndarray) -> np.ndarray:
    """The mean of a centred window of about a twentieth of the curve, narrower at its ends."""
    window = min(len(values), 2 * (len(values) // 40) + 1)
    if window < 3:
        return values
    kernel = np.ones(window)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")


def write_figure(path: str | Path, draw: Callable[[Any], None], size: tuple[float, float]) -> None:
    """Let ``draw`` fill a new figure of ``size`` inches and write it. No pyplot: nothing global is touched."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    def encode(suffix: str) -> bytes:
        with rc_context(STYLE):
            figure = Figure(figsize=size, dpi=150, layout="constrained", facecolor="white")
            FigureCanvasAgg(figure)
            draw(figure)
            buffer = BytesIO()
            try:
                figure.savefig(buffer, format=suffix, bbox_inches="tight", pad_inches=0.15)
            except ValueError as error:
                raise UserError(f"{path}: {error}") from None
        return buffer.getvalue()

    write_file(path, encode(suffix_of(path)))


def suffix_of(path: str | Path) -> str:
    """The suffix without its dot; png where there is none."""
    return Path(path).suffix[1:] or "png"


def encode_image(image: np.ndarray, suffix: str) -> bytes:
    """uint8 RGB (H, W, 3) as an image file of that format (png, jpg, …)."""
    import cv2

    try:
        return cv2.imencode(f".{suffix}", np.ascontiguousarray(image[..., ::-1]))[1].tobytes()
    except cv2.error:
        raise UserError(f"no image format is named {suffix!r}; use .png or .jpg") from None
