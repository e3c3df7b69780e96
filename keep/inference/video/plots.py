"""Plots the landmarks of a track before and after smoothing, as in figure A3 of the supplement."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from keep.inference.video.scan import AlignedTrack
from keep.utils.figures import write_figure
from keep.utils.style import PALETTE

POINTS = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")


def landmark_figure(track: AlignedTrack, path: str | Path, fps: float) -> None:
    """x and y of the five points over time. Thin: detected; bold: smoothed by eq. (10)."""
    found, smoothed = track.found, track.points
    assert found is not None
    assert smoothed is not None
    runs = _runs(track.frames)

    def draw(figure: Any) -> None:
        for axis, (axes, name) in enumerate(zip(figure.subplots(2, 1, sharex=True), "xy", strict=True)):
            for k, colour in enumerate(PALETTE[: len(POINTS)]):
                for run in runs:
                    t = track.frames[run] / fps
                    axes.plot(t, found[run, k, axis], color=colour, linewidth=0.7, alpha=0.6)
                    axes.plot(
                        t, smoothed[run, k, axis], color=colour, linewidth=1.6,
                        label=POINTS[k] if run == runs[0] else None,
                    )  # fmt: skip
            axes.set_ylabel(f"{name}, pixels")
            axes.grid(True)
            if name == "y":
                axes.invert_yaxis()  # y points down, as in the frame
                axes.set_xlabel("seconds")
            else:
                axes.set_title(f"track {track.id}, shot {track.shot}: landmarks found (thin) and smoothed (bold)")
        figure.axes[0].legend(loc="upper left", bbox_to_anchor=(1, 1))

    write_figure(path, draw, (9, 5.5))


def _runs(frames: Sequence[int] | Any) -> list[slice]:
    """Slices of consecutive frames."""
    borders = [0, *(i for i in range(1, len(frames)) if frames[i] != frames[i - 1] + 1), len(frames)]
    return [slice(a, b) for a, b in pairwise(borders)]
