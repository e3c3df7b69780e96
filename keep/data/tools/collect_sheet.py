"""A picture of a video's clips."""

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from keep.data.tools.collect_source import Source
from keep.data.video_io import read_video
from keep.faces.align import TEMPLATE_512, transform
from keep.utils.figures import write_figure
from keep.utils.style import PALETTE

PANEL = 192
"""Side of a frame on the sheet, in pixels."""
MAX_CLIPS = 24
"""Clips on a sheet; further ones are not shown."""


def write_sheet(source: Source, folder: Path, args: argparse.Namespace) -> None:
    """A row a clip: six frames with detected points, and the path of the nose before and after smoothing."""
    clips = source.clips[:MAX_CLIPS]

    def draw(figure: Any) -> None:
        grid = figure.add_gridspec(len(clips), 8)
        for row, clip in enumerate(clips):
            path = folder / Path(clip["clip"]).name
            with np.load(folder / Path(clip["landmarks"]).name) as arrays:
                data = dict(arrays)
            for column, n in enumerate(np.linspace(0, len(data["frames"]) - 1, 6).round().astype(int)):
                axes = figure.add_subplot(grid[row, column])
                _draw_frame(axes, path, data, int(n), args.size)
                if column == 0:
                    axes.set_ylabel(f"{path.stem}\nface {clip['face_px']} px\nsharp {clip['sharpness']:.0f}", size=7)
            axes = figure.add_subplot(grid[row, 6:])
            _draw_nose(axes, data)
            if row == 0:
                axes.legend(fontsize=7)
                axes.set_title("nose: x (line), y (dots), px")

    write_figure(args.out / "sheets" / f"{source.name}.png", draw, size=(14, 1.9 * len(clips) + 0.4))


def _draw_frame(axes: Any, path: Path, data: dict[str, np.ndarray], n: int, size: int) -> None:
    """Frame n of a clip with its detected points (dots) and the template's (crosses)."""
    axes.imshow(cv2.resize(read_video(path, n, 1)[0], (PANEL, PANEL), interpolation=cv2.INTER_AREA))
    points = transform(data["matrices"][n], data["points_found"][n]) * PANEL / size
    axes.plot(*points.T, ".", color=PALETTE[1], markersize=3)
    axes.plot(*(TEMPLATE_512 * PANEL / 512).T, "+", color=PALETTE[5], markersize=4)
    axes.set(xticks=[], yticks=[], title=f"frame {data['frames'][n]}")


def _draw_nose(axes: Any, data: dict[str, np.ndarray]) -> None:
    """The path of the nose over the clip, as detected and smoothed."""
    for name, label, colour, width in (
        ("points_found", "as found", PALETTE[1], 0.7),
        ("points", "smoothed", PALETTE[0], 1.4),
    ):
        nose = data[name][:, 2] - data["points_found"][:, 2].mean(0)
        axes.plot(data["frames"], nose[:, 0], color=colour, linewidth=width, label=label)
        axes.plot(data["frames"], nose[:, 1], color=colour, linewidth=width, linestyle=":")
    axes.tick_params(labelsize=7)
