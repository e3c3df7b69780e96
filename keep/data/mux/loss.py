"""Measures how many pictures a damaged file has lost, from its packets: their times, places and marks."""

from collections import deque
from heapq import heappop, heappush
from pathlib import Path
from statistics import median
from typing import Any

TILED = frozenset({"matroska,webm", "avi", "flv"})  # formats whose packets lie next to each other
BROADCAST = frozenset({"mpegts", "mpeg"})  # formats whose pictures have a constant rate
HOLE = 100  # bytes between two packets that are more than headers
NEAR = 1.0  # seconds between damage and the gap in time that it explains
REORDERED = 20  # packets that may wait for one with an earlier display time


class Loss:
    """Sees every packet of a file and estimates how many pictures are missing between them.

    A gap in time alone is no loss: pictures may be shown for long. It is one where the file is damaged nearby: bytes
    that belong to no packet, a packet marked as damaged, an error, sound that is missing too, or a broadcast file whose
    other pictures all follow each other at the same pace.

    Args:
        container: the open file.
        video: its video stream.
        step: usual seconds between two pictures.
        size: size of the file, in bytes.
    """

    def __init__(self, container: Any, video: Any, step: float, size: int) -> None:
        self._size = size
        self._format, self._video, self._step = container.format.name, video.index, step
        self.packets = self.discarded = self.early = 0
        self.broken = False
        self._place: int | None = None  # end of the last packet in the file
        self._wounds: list[float] = []  # times of damage
        self._waiting: list[float] = []  # display times that are not in order yet
        self._steps: deque[float] = deque(maxlen=25)
        self._gaps: list[tuple[float, float, int]] = []  # begin, end, pictures missing
        self._joins: list[float] = []  # times at which the time stamps jumped
        self._silences: list[tuple[float, float]] = []
        self._sound_ends: dict[int, float] = {}
        self._last: float | None = None
        self._regular = self._irregular = 0

    def see(self, packet: Any) -> None:
        """Look at the next packet of any stream, in the order of the file."""
        stamp = packet.pts if packet.pts is not None else packet.dts
        time = None if stamp is None else float(stamp * packet.time_base)
        self._see_place(packet, time)
        if packet.stream.type == "audio" and time is not None:
            end = self._sound_ends.get(packet.stream_index, time)
            if time - end > max(0.05, self._step):
                self._silences.append((end, time))
            self._sound_ends[packet.stream_index] = time + float((packet.duration or 0) * packet.time_base)
        elif packet.stream_index == self._video:
            self.packets += 1
            self.discarded += packet.is_discard
            if time is not None:
                heappush(self._waiting, time)
                if len(self._waiting) > REORDERED:
                    self._follow(heappop(self._waiting))

    def wound(self, time: float | None = None) -> None:
        """The file is damaged at this time, or at the time of the last picture seen."""
        self.broken = True
        self._wounds.append(time if time is not None else max(self._waiting, default=self._last or 0.0))

    def join(self, time: float) -> None:
        """The time stamps jumped here and were carried on: a gap is no loss."""
        self._joins.append(time)

    def missing(self) -> int:
        """Pictures missing between the packets seen, once all were seen."""
        while self._waiting:
            self._follow(heappop(self._waiting))
        steady = self._format in BROADCAST and self._regular >= 25 and self._irregular <= 0.05 * self._regular
        return sum(count for begin, end, count in self._gaps if self._is_loss(begin, end, steady))

    def missing_at_the_end(self, seconds: float, cut_short: bool) -> int:
        """Pictures missing at the end, once all packets were seen.

        Args:
            seconds: between the last picture that was decoded and the end that the header names.
            cut_short: the file itself says that its end is missing.
        """
        step = median(self._steps) if len(self._steps) > 5 else self._step
        count = round(seconds / step) - 1
        if cut_short or self.broken or self._wounds:
            return max(count, 0)
        if count <= max(2, 0.5 / step):  # durations are not exact, and the last picture may be shown for long
            return 0
        if self._format in TILED and self._place is not None:
            behind = self._size - self._place  # bytes of missing packets, or of an index
            return count if behind > 0.3 * count * self._place / max(self.packets, 1) else 0
        return count

    def _is_loss(self, begin: float, end: float, steady: bool) -> bool:
        if any(begin - NEAR <= time <= end + NEAR for time in self._joins):
            return False
        if steady or any(begin - NEAR <= time <= end + NEAR for time in self._wounds):
            return True
        return any(min(end, until) - max(begin, since) > 0.5 * (end - begin) for since, until in self._silences)

    def _see_place(self, packet: Any, time: float | None) -> None:
        if packet.is_corrupt:
            self.wound(time)
        if self._format in TILED and packet.pos is not None and packet.pos >= 0:
            if self._place is not None and packet.pos - self._place > HOLE:
                self._wounds.append(time if time is not None else self._last or 0.0)
            self._place = max(self._place or 0, packet.pos + packet.size)

    def _follow(self, time: float) -> None:
        """Take the next display time in ascending order."""
        if self._last is not None and time > self._last:
            step, usual = time - self._last, median(self._steps) if len(self._steps) > 5 else self._step
            if step > 1.5 * usual:
                self._irregular += 1
                self._gaps.append((self._last, time, round(step / usual) - 1))
            else:
                self._regular += 1
            self._steps.append(step)
        self._last = time


def is_cut_short(path: Path, name: str) -> bool:
    """Whether the end of a file is missing, as the file itself says: Matroska by its size, MPEG-TS by half a packet.

    Args:
        path: the file.
        name: FFmpeg's name of its format.
    """
    size = path.stat().st_size
    if name == "mpegts":
        with path.open("rb") as file:
            file.seek(max(0, size - 5 * 204))
            end = file.read()
        return not any(
            end[-packet - extra :: -packet][:4] == 4 * b"\x47" for packet, extra in ((188, 0), (192, -4), (204, 0))
        )
    if name != "matroska,webm":
        return False
    with path.open("rb") as file:
        head = file.read(4096)
    at = head.find(b"\x18\x53\x80\x67")  # the segment
    if at < 0 or at + 12 > len(head):
        return False
    length = 9 - head[at + 4].bit_length()  # of the field that holds the segment's size
    content = int.from_bytes(head[at + 4 : at + 4 + length]) & ((1 << 7 * length) - 1)
    unknown = content == (1 << 7 * length) - 1
    return not unknown and at + 4 + length + content > size
