"""Interlaced video: two fields of half the lines, each of its own time, in one frame."""

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import islice
from typing import Any, Literal

import av.error
import numpy as np
from av.filter import Graph

Deinterlace = Literal["auto", "off", "keep"]
PROBED = 12  # first frames that tell whether a video is interlaced


def is_interlaced(frames: Iterable[Any]) -> bool:
    """Whether one of the first frames is marked as interlaced."""
    return any(frame.interlaced_frame for frame in islice(frames, PROBED))


def progressive(frames: Iterable[tuple[Any, int]], time_base: Fraction, double: bool) -> Iterator[tuple[Any, int, Any]]:
    """FFmpeg's bwdif over decoded frames. Frames that are not marked as interlaced stay as they are.

    Args:
        frames: (PyAV frame, time in units of ``time_base``).
        time_base: in seconds.
        double: a frame for each field, at twice the rate; else a frame for each frame.

    Yields:
        (progressive frame, its time in units of ``time_base``, or of half of it with ``double``; the interlaced frame
        that it comes from).
    """
    graph: tuple[Any, ...] | None = None
    given: deque[tuple[Any, int]] = deque()
    for frame, time in frames:
        kind = (frame.width, frame.height, frame.format.name)
        if graph is None or graph[0] != kind:
            if graph is not None:
                yield from _pull(graph[1], None, given, double)
            graph = kind, _graph(frame, time_base, double)
            given.clear()
        frame.pts, frame.time_base = time, time_base
        given.append((frame, time))
        yield from _pull(graph[1], frame, given, double)
    if graph is not None:
        yield from _pull(graph[1], None, given, double)


def with_fields_of(given: Any, picture: Any) -> Any:
    """``picture`` marked as interlaced as ``given`` is, with its field order; both of one format and size.

    PyAV has no field for the order, so the pixels of a copy of ``given`` are replaced.
    """
    if (given.format.name, given.width, given.height) != (picture.format.name, picture.width, picture.height):
        return picture
    copy = given.reformat(format="yuv444p").reformat(format=given.format.name)
    for plane, new in zip(copy.planes, picture.planes, strict=True):
        values = np.zeros((plane.height, plane.line_size), np.uint8)
        width = plane.width
        values[:, :width] = np.frombuffer(new, np.uint8).reshape(new.height, new.line_size)[:, :width]
        plane.update(values.tobytes())
    copy.colorspace, copy.color_range = picture.colorspace, picture.color_range
    return copy


def _graph(frame: Any, time_base: Fraction, double: bool) -> Graph:
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=time_base)
    bwdif = graph.add("bwdif", f"mode=send_{'field' if double else 'frame'}:parity=auto:deint=interlaced")
    graph.link_nodes(source, bwdif, graph.add("buffersink"))
    graph.configure()
    return graph


def _pull(graph: Graph, frame: Any, given: deque[tuple[Any, int]], double: bool) -> Iterator[tuple[Any, int, Any]]:
    """What the filter returns for ``frame``; None: the frames it still holds. Its times have half the unit."""
    graph.push(frame)
    while True:
        try:
            out: Any = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        while len(given) > 1 and 2 * given[1][1] <= out.pts:
            given.popleft()
        begin = given[0]
        time = out.pts if double else out.pts // 2
        if double and begin[0].duration:  # a second field is shown within its frame, also before a gap
            time = min(time, 2 * begin[1] + begin[0].duration)
        yield out, time, begin[0]
