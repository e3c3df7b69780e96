"""Figures by matplotlib: the Kalman gain over time, loss curves. No pyplot: nothing global is touched."""

import math
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from keep.utils.errors import UserError
from keep.utils.io import write_file
from keep.utils.pictures import check_clips, spread, suffix_of
from keep.utils.style import PALETTE, STYLE


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


def gain_figure(gains: np.ndarray, frames: np.ndarray, path: str | Path, columns: int = 6) -> None:
    """The Kalman gain over time: some frames, the gain map under each, and the mean gain of every frame.

    K as in Algorithm 1 of the supplement: ẑ⁺ = (1 − K)·ẑ⁻ + K·z̃, so 1 trusts the observation, 0 the prediction.

    Args:
        gains: (T, h, w) in [0, 1]; NaN where there is no gain: a first frame has no prediction.
        frames: uint8 RGB (T, H, W, 3).
        path: the figure to write; its suffix sets the format (png, pdf, svg).
        columns: how many frames to show, spread evenly.
    """
    check_clips({"frames": frames})
    gains = np.asarray(gains, dtype=np.float64)
    if gains.ndim != 3 or len(gains) != len(frames):
        raise UserError(f"gain_figure: gains {gains.shape} must be (T, h, w) with T = {len(frames)}, a map for a frame")
    times = spread(len(frames), columns)

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


def _heat() -> Any:
    from matplotlib import colormaps

    return colormaps["viridis"].with_extremes(bad="#e4e6ea")


def loss_curves(series: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]], path: str | Path) -> None:
    """Training curves: a panel a stage, a line a term. The raw values are faint, their moving average is bold.

    Args:
        series: stage name → term → (steps, values). Values that are not finite are skipped.
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


def _moving_average(values: np.ndarray) -> np.ndarray:
    """Mean over a centred window, about a twentieth of the curve, narrower at both ends."""
    window = min(len(values), 2 * (len(values) // 40) + 1)
    if window < 3:
        return values
    kernel = np.ones(window)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")
