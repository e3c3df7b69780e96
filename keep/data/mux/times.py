"""Time stamps that jump: carried on, with one offset for all streams."""

from fractions import Fraction
from typing import Any

BACK = 0.1  # seconds; FFmpeg's copy calls more than that a jump back
AHEAD = {"mpegts": 10.0, "mpeg": 10.0}
"""Format → jump ahead, in seconds, that is closed, as FFmpeg's copy does with broadcast formats."""
AHEAD_ELSEWHERE = 30 * 3600.0  # FFmpeg's limit: a frame may be shown for long, but not that long


class Continuity:
    """Finds the offset that carries a packet's time on where a file's time stamps jump.

    Recordings joined by ``cat`` start again at another time; so do DVR files after a pause. Every reader of a file
    passes the packets of all its picture, sound and subtitle streams in the order of the file. So all readers find the
    same offsets, and the streams stay in step.

    Args:
        container: the open file.

    Attributes:
        jumps: number of jumps so far.
    """

    def __init__(self, container: Any) -> None:
        self.jumps = 0
        self._ahead = AHEAD.get(container.format.name, AHEAD_ELSEWHERE)
        self._now, self._before = Fraction(0), Fraction(0)  # offsets after and before the last jump
        self._ends: dict[int, float] = {}  # stream → end of its last packet, carried on
        self._last: dict[int, tuple[float, float]] = {}  # stream → time of its last packet, length of a packet

    def offset(self, packet: Any) -> Fraction:
        """Seconds to add to the time stamps of ``packet``."""
        stamp = packet.dts if packet.dts is not None else packet.pts
        kind = packet.stream.type
        if stamp is None or (packet.dts is None and kind == "video"):  # display times of pictures may go back
            return self._now
        time = float(stamp * packet.time_base)
        end = self._ends.get(packet.stream_index) if kind != "subtitle" else max(self._ends.values(), default=None)
        offset = self._now if end is None else self._nearest(time, end, kind == "subtitle")
        if offset is None:
            self.jumps += 1
            after = max(self._ends.values()) - time  # behind the longest stream: none overlaps
            self._before, self._now = self._now, Fraction(round(after * 1_000_000), 1_000_000)
            offset = self._now
        if kind != "subtitle":
            self._ends[packet.stream_index] = time + float(offset) + self._length(packet, time)
        return offset

    def _length(self, packet: Any, time: float) -> float:
        """Seconds of a packet; where it does not say, the shortest time between two."""
        before, length = self._last.get(packet.stream_index, (time, 0.0))
        if packet.duration:
            length = float(packet.duration * packet.time_base)
        elif time > before:
            length = min(length or time - before, time - before, 1.0)
        self._last[packet.stream_index] = time, length
        return length

    def _nearest(self, time: float, end: float, any_time: bool) -> Fraction | None:
        """Of the last two offsets, the one that puts ``time`` closest to ``end``; None where both are a jump."""
        allowed = [
            (abs(time + float(offset) - end), offset)
            for offset in (self._now, self._before)
            if any_time or -BACK <= time + float(offset) - end <= self._ahead
        ]
        return min(allowed, key=lambda pair: pair[0])[1] if allowed else None


def shift(packet: Any, seconds: Fraction) -> Any:
    """``packet`` with its time stamps moved by ``seconds``."""
    ticks = round(seconds / packet.time_base)
    if packet.dts is not None:
        packet.dts += ticks
    if packet.pts is not None:
        packet.pts += ticks
    return packet
