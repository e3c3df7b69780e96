"""A picture of a video's clips."""

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from keep.data.tools.wild.source import Source
from keep.data.video_io import read_video
from keep.faces.align import TEMPLATE_512, transform
from keep.utils.visual import PALETTE, write_figure


def sheet(source: Source, folder: Path, args: argparse.Namespace) -> None:
    """A row a clip: six of its frames with the smoothed points, and the nose's way before and after smoothing."""
    clips = source.clips[:24]

    def draw(figure: Any) -> None:
        grid = figure.add_gridspec(len(clips), 8)
        for row, clip in enumerate(clips):
            path = folder / Path(clip["clip"]).name
            with np.load(folder / Path(clip["landmarks"]).name) as arrays:
                data = dict(arrays)
            for column, n in enumerate(np.linspace(0, len(data["frames"]) - 1, 6).round().astype(int)):
                axes = figure.add_subplot(grid[row, column])
                axes.imshow(cv2.resize(read_video(path, int(n), 1)[0], (192, 192), interpolation=cv2.INTER_AREA))
                points = transform(data["matrices"][n], data["points_found"][n]) * 192 / args.size
                axes.plot(*points.T, ".", color=PALETTE[1], markersize=3)
                axes.plot(*(TEMPLATE_512 * 192 / 512).T, "+", color=PALETTE[5], markersize=4)
                axes.set(xticks=[], yticks=[], title=f"frame {data['frames'][n]}")
                if column == 0:
                    axes.set_ylabel(f"{path.stem}\nface {clip['face_px']} px\nsharp {clip['sharpness']:.0f}", size=7)
            axes = figure.add_subplot(grid[row, 6:])
            for which, colour, width in (("points_found", PALETTE[1], 0.7), ("points", PALETTE[0], 1.4)):
                way = data[which][:, 2] - data["points_found"][:, 2].mean(0)
                label = "as found" if which == "points_found" else "smoothed"
                axes.plot(data["frames"], way[:, 0], color=colour, linewidth=width, label=label)
                axes.plot(data["frames"], way[:, 1], color=colour, linewidth=width, linestyle=":")
            axes.tick_params(labelsize=7)
            if row == 0:
                axes.legend(fontsize=7)
                axes.set_title("nose: x (line), y (dots), px")

    write_figure(args.out / "sheets" / f"{source.name}.png", draw, size=(14, 1.9 * len(clips) + 0.4))
