"""Pictures of what an error model says: maps beside the truth, a reliability diagram, the curve of --min-confidence."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keep.utils.figures import write_figure
from keep.utils.style import PALETTE

BRIGHT = 24.0
"""Grey levels of an error with the brightest colour."""
BINS = 12


def map_figure(rows: Sequence[Mapping[str, Any]], path: Path, title: str = "") -> None:
    """One row a frame: input, output, truth, gain, expected error, true error.

    Args:
        rows: ``name``; ``input``, ``output``, ``truth`` uint8 (S, S, 3); ``gain`` (h, w) or None; ``expected`` and
            ``true`` errors of luma (b, b), in grey levels.
        path: the picture.
        title: above all.
    """
    columns = ("input", "output", "truth", "gain", "expected", "true")
    titles = ("input", "output", "truth", "gain K", "expected error", "true error")

    def draw(figure: Any) -> None:
        grid = figure.subplots(len(rows), len(columns), squeeze=False)
        shown = None
        for number, (line, row) in enumerate(zip(grid, rows, strict=True)):
            for axes, column, name in zip(line, columns, titles, strict=True):
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
                if number == 0:
                    axes.set_title(name)
                if row[column] is None:
                    axes.text(0.5, 0.5, "first frame", ha="center", va="center", transform=axes.transAxes)
                elif column == "gain":
                    axes.imshow(row[column], vmin=0, vmax=1, cmap="viridis")
                elif column in ("expected", "true"):
                    shown = axes.imshow(row[column], vmin=0, vmax=BRIGHT, cmap="inferno")
                else:
                    axes.imshow(row[column])
            line[0].set_ylabel(row["name"], fontsize=8)
        bar = figure.colorbar(shown, ax=list(grid[:, -1]), label="grey levels of 255")
        bar.outline.set_visible(False)
        if title:
            figure.suptitle(title, fontsize=12)

    write_figure(path, draw, size=(10.5, 0.4 + 1.75 * len(rows)))


def reliability_figure(bands: np.ndarray, true: np.ndarray, tails: Sequence[float], path: Path) -> None:
    """Expected against true error: in bins of the expected error, the true one's middle and the ends of the intervals
    beside the quantiles of the truth that they stand for.

    Args:
        bands: low, middle and high of the expected error (3, N).
        true: (N,).
        tails: shares of the truth that are to be below and above the intervals.
        path: the picture.
    """
    order = np.array_split(np.argsort(bands[1], kind="stable"), BINS)
    levels = (tails[0], 0.5, 1 - tails[1])
    expected = np.array([[bands[k][part].mean() for part in order] for k in range(3)])
    found = np.array([[np.quantile(true[part], level) for part in order] for level in levels])
    held = [float(((true[p] >= bands[0][p]) & (true[p] <= bands[2][p])).mean()) for p in order]

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        x = expected[1]
        for k, name in enumerate(("low end", "middle", "high end")):
            left.plot(x, expected[k], color=PALETTE[k], label=f"{name}, expected")
            left.plot(x, found[k], "o", color=PALETTE[k], markersize=4, label=f"{name}, true")
        left.set(xlabel="expected error (middle)", ylabel="error", title="expected and true error", xscale="log",
                 yscale="log")  # fmt: skip
        for axis in (left.xaxis, left.yaxis):
            axis.get_major_locator().set_params(subs=(1, 2, 5))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("")
        left.legend(fontsize=7)
        left.grid(True)
        right.bar(range(BINS), held, color=PALETTE[0])
        right.axhline(1 - sum(tails), color=PALETTE[1])
        right.set(xlabel="bins, from the smallest expected error to the largest", ylim=(0.5, 1), xticks=[],
                  title="share of the blocks in their intervals")  # fmt: skip
        right.grid(axis="y")

    write_figure(path, draw, size=(9.5, 3.8))


def curve_figure(points: Sequence[Mapping[str, float]], path: Path) -> None:
    """Metrics over --min-confidence: a panel for each metric.

    Args:
        points: ``least`` and the metrics by name, ascending.
        path: the picture.
    """
    names = [name for name in points[0] if name != "least"]

    def draw(figure: Any) -> None:
        panels = figure.subplots(1, len(names), squeeze=False)[0]
        for axes, name, colour in zip(panels, names, PALETTE, strict=False):
            axes.plot([p["least"] for p in points], [p[name] for p in points], "o-", color=colour)
            axes.set(xlabel="--min-confidence", title=name)
            axes.grid(True)

    write_figure(path, draw, size=(3.2 * len(names), 3.0))
