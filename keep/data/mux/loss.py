"""Measures how many pictures a damaged file has lost, from its packets: their times, places and marks."""

from collections import deque
from heapq import heappop, heappush
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

from keep.data.mux.matroska import read_clusters

TILED = frozenset({"matroska,webm", "avi", "flv"})  # formats whose packets lie next to each other
BROADCAST = frozenset({"mpegts", "mpeg"})  # formats whose pictures have a constant rate
HOLE = 100  # bytes between two packets that are more than headers
AT = 0.2  # seconds between a join and the gap that it explains
NEAR = 1.0  # seconds between damage and the gap in time that it explains
SYNC = ((188, 0), (192, 4), (204, 0))  # length of MPEG-TS packets, place of their sync byte
EARLY = 2  # packets of a stream by which a mark of damage may come too early: FFmpeg's parser holds them
REORDERED = 20  # packets that may wait for one with an earlier display time


class Loss:
    """Sees every packet of a file and estimates how many pictures are missing between them.

    A gap in time alone is no loss: pictures may be shown for long. It is one where the file is damaged nearby: bytes
    that belong to no packet, a packet marked as damaged, an error, sound that is missing too, or a broadcast file whose
    other pictures all follow each other at the same pace. The same holds for a Matroska file whose structure is broken.

    Args:
        container: the open file.
        video: its video stream.
        step: usual seconds between two pictures.
        path: the file.
    """

    def __init__(self, container: Any, video: Any, step: float, path: Path) -> None:
        self._size = path.stat().st_size
        self._format, self._video, self._step = container.format.name, video.index, step
        self.packets = self.discarded = self.early = self._bytes = 0
        self.broken = False
        self.whole_start = True  # the first packet is a key frame
        self._begin: int | None = None  # place of the first packet in the file
        self._place: int | None = None  # end of the last one so far
        self._wounds: list[float] = []  # times of damage
        self._marks: list[tuple[int, float, int]] = []  # new marks of damage: stream, time, packets seen since
        self._waiting: list[float] = []  # display times that are not in order yet
        self._steps: deque[float] = deque(maxlen=25)
        self._unjudged: list[tuple[float, float]] = []  # begin and end of the first steps, until one is usual
        self._gaps: list[tuple[float, float, int]] = []  # begin, end, pictures missing
        self._joins: list[float] = []  # times at which the time stamps jumped
        self._silences: list[tuple[float, float]] = []
        self._sound_ends: dict[int, float] = {}
        self._last: float | None = None
        self._latest = -inf  # highest display time
        self._regular = self._total = 0  # steps of the usual length, all steps
        self._clusters = read_clusters(path) if self._format == "matroska,webm" else None
        self.unfinished = self._format == "mpegts" and ends_in_a_packet(path)

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
            self.whole_start = packet.is_keyframe if not self.packets else self.whole_start
            self.packets += 1
            if packet.is_discard and time is not None and time < self._latest - NEAR:
                self.wound(self._latest)  # not cut away by an edit list: its time is nonsense
                return
            self.discarded += packet.is_discard
            if time is not None:
                self._latest = max(self._latest, time)
                heappush(self._waiting, time)
                if len(self._waiting) > REORDERED:
                    self._follow(heappop(self._waiting))

    def wound(self, time: float | None = None) -> None:
        """The file is damaged at this time, or at the time of the last picture seen."""
        self.broken = True
        self._wounds.append(time if time is not None else self._newest)

    def join(self, time: float) -> None:
        """The time stamps jumped here and were carried on: a gap is no loss, nor are marks on the packets before."""
        self._joins.append(time)
        self._marks.clear()

    def finish(self) -> None:
        """All packets were seen."""
        while self._waiting:
            self._follow(heappop(self._waiting))
        self._judge()
        for _, time, _ in self._marks:
            self.wound(time)
        self._marks.clear()

    def missing(self) -> int:
        """Pictures missing between the packets, after :meth:`finish`."""
        if self._hole_behind() > HOLE:  # pictures that are shown earlier may be in it
            self._wounds.append(self._last or 0.0)
        steady = (self._format in BROADCAST or self._bad_structure) and self._regular >= max(25, 0.9 * self._total)
        return sum(count for begin, end, count in self._gaps if self._is_loss(begin, end, steady))

    def missing_at_the_ends(self, begin: float, before: float, behind: float | None) -> int:
        """Pictures missing before the first and behind the last one, after :meth:`finish`.

        A video may start late, and its last picture may be shown for long. So here, too, the file must be damaged.

        Args:
            begin: time of the first picture, in seconds.
            before: seconds from the first packet of any stream to the first picture.
            behind: seconds between the last picture and the end that the header names; None if that is not known.
        """
        step = self._usual
        if (clusters := self._clusters) is None:  # durations are not exact, and wrong where time stamps jump
            last = _pictures(behind, step)
            return last if not self._joins and (self.broken or last > max(2, 0.5 / step)) else 0
        hole_first = 0 if clusters.begin is None else (self._begin or 0) - clusters.begin
        hole_last = self._hole_behind()
        first = round(before / step) if any(time <= before + AT for time in self._wounds) else 0
        if hole_first > HOLE:  # the first packet that is left is not the beginning; that was at about time 0
            first = max(round(before / step), min(round(begin / step), self._pictures_in(hole_first)))
            behind = None if behind is None else behind - (begin - before)
        last = _pictures(behind, step)
        hurt = self._bad_structure or bool(self._wounds)
        if behind is None or self._joins:
            last = max(last, self._pictures_in(hole_last))
        return first + last * (hurt or hole_last > HOLE)

    @property
    def _bad_structure(self) -> bool:
        """Whether the elements of a Matroska file do not fit together."""
        return self._clusters is not None and (self._clusters.cut_short or not self._clusters.whole)

    def plausible(self, promised: int) -> int:
        """``promised``, a header's number of pictures; 0 where the file is too small for them."""
        return promised if promised < self._size else 0

    def _hole_behind(self) -> int:
        """Bytes behind the last packet that belong to none, in Matroska."""
        return 0 if self._place is None or self._clusters is None else self._clusters.end - self._place

    def _pictures_in(self, hole: int) -> int:
        """About how many pictures so many bytes contain."""
        return round(hole * self.packets / max(1, self._bytes)) if hole > HOLE else 0

    def _is_loss(self, begin: float, end: float, steady: bool) -> bool:
        if not self._bad_structure and any(begin - AT <= time <= end + AT for time in self._joins):
            return False
        if steady or any(begin - NEAR <= time <= end + NEAR for time in self._wounds):
            return True
        return any(min(end, until) - max(begin, since) > 0.5 * (end - begin) for since, until in self._silences)

    def _see_mark(self, packet: Any, time: float) -> None:
        """A mark is damage unless a join follows: there the counters of broadcasts do not fit, without any loss."""
        before, self._marks = self._marks, []
        for stream, at, age in before:
            age += stream == packet.stream_index
            if age > EARLY:
                self.wound(at)
            else:
                self._marks.append((stream, at, age))
        if packet.is_corrupt and (not self._joins or abs(time - self._joins[-1]) > AT):
            self._marks.append((packet.stream_index, time, 0))

    def _see_place(self, packet: Any, time: float | None) -> None:
        self._see_mark(packet, time if time is not None else self._newest)
        if self._format in TILED and packet.pos is not None and packet.pos >= 0:
            self._begin = packet.pos if self._begin is None else self._begin
            if self._place is not None and packet.pos - self._place > HOLE:
                self._wounds.append(time if time is not None else self._last or 0.0)
            self._place = max(self._place or 0, packet.pos + packet.size)
            self._bytes += packet.size

    @property
    def _newest(self) -> float:
        """Time of the last picture seen."""
        return max(self._waiting, default=self._last or 0.0)

    @property
    def _usual(self) -> float:
        """Usual seconds between two pictures: of the last ones, or what the header says."""
        return median(self._steps) if len(self._steps) > 5 else self._step

    def _follow(self, time: float) -> None:
        """Take the next display time in ascending order."""
        if self._last is not None and time > self._last:
            self._unjudged.append((self._last, time))
            if len(self._steps) > 5:
                self._judge()
            self._steps.append(time - self._last)
        self._last = time

    def _judge(self) -> None:
        """Compare the last steps, mostly one, with the usual one."""
        usual = self._usual
        for begin, end in self._unjudged:
            step = end - begin
            self._total += 1
            self._regular += abs(step - usual) < 0.1 * usual
            if step > 1.5 * usual:
                self._gaps.append((begin, end, round(step / usual) - 1))
        self._unjudged.clear()


def _pictures(seconds: float | None, step: float) -> int:
    """Pictures missing where one was shown for so long; None: for an unknown time."""
    return max(round((seconds or 0) / step) - 1, 0)


def ends_in_a_packet(path: Path) -> bool:
    """Whether an MPEG-TS file ends in the middle of one of its packets."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(4 * 204)
        file.seek(max(0, size - 5 * 204))
        end = file.read()
    sizes = [step for step, first in SYNC if start[first::step][:4] == 4 * b"\x47"]
    if any(size % packet == 0 for packet in sizes or [step for step, _ in SYNC]):
        return False
    # Something may have been inserted before: are the last packets complete?
    return not any(end[first - step :: -step][:4] == 4 * b"\x47" for step, first in SYNC)
