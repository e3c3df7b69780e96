"""The shape of FFV1's pixels. It stands in the frames, where PyAV has no field for it but filters reach it."""

from fractions import Fraction
from typing import Any

from av.filter import Graph

FINE = 65536  # pixels of the line whose length tells the aspect


def with_aspect(picture: Any, aspect: Fraction) -> Any:
    """A PyAV frame, with pixels ``aspect`` times as wide as high."""
    return _filtered(picture, "setsar", f"ratio={aspect.numerator}/{aspect.denominator}:max={FINE}")


def aspect_of(picture: Any) -> Fraction | None:
    """Width over height of a PyAV frame's pixels, exact for terms up to 255; None where they are square or unknown."""
    line = _filtered(picture, "scale", f"w=round({FINE}*sar):h=1:flags=neighbor:eval=frame")
    return Fraction(line.width, FINE).limit_denominator(255) if line.width != FINE else None


def _filtered(picture: Any, name: str, arguments: str) -> Any:
    graph = Graph()
    source = graph.add_buffer(
        width=picture.width, height=picture.height, format=picture.format, time_base=picture.time_base
    )
    graph.link_nodes(source, graph.add(name, arguments), graph.add("buffersink"))
    graph.configure()
    graph.push(picture)
    return graph.pull()
