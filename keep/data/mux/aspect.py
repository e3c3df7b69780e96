"""The pixel aspect of FFV1. It is stored in the frames; PyAV has no field for it, but filters can read and set it."""

from fractions import Fraction
from typing import Any

from av.filter import Graph

FINE = 65536  # width of a line that is scaled by the aspect


def with_aspect(picture: Any, aspect: Fraction) -> Any:
    """The PyAV frame with pixels ``aspect`` times as wide as high."""
    return _filtered(picture, "setsar", f"ratio={aspect.numerator}/{aspect.denominator}:max={FINE}")


def aspect_of(picture: Any) -> Fraction | None:
    """Width over height of a PyAV frame's pixels, exact for terms up to 255; None if square or unknown."""
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
