"""Reads the packets of a file, and its pictures in display order, past any damage."""

from collections import Counter, deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av.error

from keep.data.mux.loss import BROADCAST, Loss
from keep.data.mux.times import Continuity, shift

TIMED = ("video", "audio", "subtitle")  # types of the streams that are read, in the order of the file
TRIES = 50  # read errors in a row after which a file is given up
FEWER_FRAMES = frozenset({"vp8", "vp9", "av1", "msmpeg4v3"})  # codecs in which a packet may have no picture
THREADED = frozenset({"h264", "hevc", "vp9", "libdav1d", "av1"})  # slow to decode, and several threads do it well
RECENT = 64  # packets among which repeated ones are looked for
WARM = 24  # packets after which a decoder is as many behind as it will be


class Packets:
    """The packets of all pictures, sound and subtitles, in the order of the file. Read errors are passed over.

    All readers of a file use this class, so they see the same packets and find the same offsets where times jump.

    Attributes:
        continuity: counts the jumps.
        errors: number of read errors so far.
        repeats: video stream → packets with the display time of one shortly before. Where a piece of a file stands
            twice in it, a decoder drops the pictures that it has given already.
    """

    def __init__(self, container: Any) -> None:
        self._container = container
        self.continuity = Continuity(container)
        self.errors = 0
        self.repeats: Counter[int] = Counter()
        self._recent: deque[tuple[int, int]] = deque(maxlen=RECENT)

    def __iter__(self) -> Iterator[Any]:
        """Packets that are not empty, their times carried on where they jump."""
        streams = [s for s in self._container.streams if s.type in TIMED]
        demuxed, in_a_row = self._container.demux(streams), 0
        while in_a_row < TRIES:
            try:
                packet = next(demuxed, None)
            except av.error.FFmpegError:
                self.errors += 1
                in_a_row += 1
                demuxed = self._container.demux(streams)
                continue
            except IndexError:  # PyAV fails at the end of a file in which further streams appeared
                return
            if packet is None:
                return
            in_a_row = 0
            if packet.size:
                self._compare(packet)
                yield shift(packet, self.continuity.offset(packet))

    def _compare(self, packet: Any) -> None:
        if packet.stream.type == "video" and packet.pts is not None:
            place = packet.stream_index, packet.pts
            self.repeats[packet.stream_index] += place in self._recent
            self._recent.append(place)


class Damaged(Exception):  # noqa: N818, not an error
    """Several threads met damaged data. They lose intact pictures beside it, so one thread must read the file."""


class Pictures:
    """The decoded pictures of an open file, once.

    Args:
        path: the file.
        container: the open file.
        stream: its video stream.
        step: usual seconds between two pictures.
        threads: decode with several threads, and raise :class:`Damaged` where one of them fails.

    Attributes:
        jumps: number of jumps of the time stamps.
        given: number of pictures so far.
        damaged: number of pictures decoded from damaged data.
        unfinished: whether the file ends in the middle of a packet.
    """

    def __init__(self, path: Path, container: Any, stream: Any, step: Fraction, threads: bool) -> None:
        self._container, self._stream = container, stream
        self._packets = Packets(container)
        self._loss = Loss(container, stream, float(step), path)
        self._slotted = container.format.name == "avi"
        self._first_slot = self._delay = None
        self.given = self.damaged = self._interlaced = self._failed = 0
        self.begin = self.end = None  # time stamps of the first and the last picture
        self.last_slot = -1
        self._threads, self._behind = threads, 0
        stream.thread_type = "AUTO" if threads and stream.codec_context.name in THREADED else "SLICE"

    @property
    def unfinished(self) -> bool:
        return self._loss.unfinished

    @property
    def jumps(self) -> int:
        return self._packets.continuity.jumps

    def __iter__(self) -> Iterator[tuple[Any, int | None]]:
        """(PyAV frame, its time in units of the stream's time base or None), in display order."""
        early: list[int] = []  # times of the first packets
        errors = jumps = 0
        for packet in self._packets:
            if self._packets.errors > errors:
                errors = self._packets.errors
                self._loss.wound()
            if self.jumps > jumps:
                jumps = self.jumps
                self._loss.join(float((packet.dts or 0) * packet.time_base))
            self._loss.see(packet)
            if packet.stream_index != self._stream.index:
                continue
            if self._slotted and packet.dts is not None:
                self.last_slot = packet.dts
                self._first_slot = packet.dts if self._first_slot is None else self._first_slot
            if packet.pts is not None and len(early) < 64:
                early.append(packet.pts)
            yield from self._take(packet.decode)
        if self._packets.errors > errors:
            self._loss.wound()
        if self.begin is not None:
            self._loss.early = sum(time < self.begin for time in early)
        yield from self._take(lambda: self._stream.decode(None), last=True)
        if self.begin is not None:
            self._loss.early = sum(time < self.begin for time in early)

    def _take(self, decode: Any, last: bool = False) -> Iterator[tuple[Any, int | None]]:
        try:
            frames = decode()
        except av.error.EOFError:
            return
        except av.error.FFmpegError as error:
            if self._threads:
                raise Damaged from error
            self._loss.wound()
            self._failed += 1
            return
        if self._threads:
            self._watch(frames, last)
        for frame in frames:
            self.given += 1
            self.damaged += frame.is_corrupt
            self._interlaced += frame.interlaced_frame
            time = self._slot(frame) if self._slotted else frame.pts
            if time is not None:
                self.begin = time if self.begin is None else self.begin
                self.end = time
            yield frame, time

    def _watch(self, frames: list[Any], last: bool) -> None:
        """Threads fail without an error: then a picture is missing, and the decoder falls behind once more.

        Raises:
            Damaged: that happened.
        """
        loss = self._loss
        behind = loss.packets - loss.discarded - self.given - len(frames)
        fewer = self._stream.codec_context.name in FEWER_FRAMES
        if any(frame.is_corrupt for frame in frames):
            raise Damaged
        if not fewer and (behind > loss.early if last else loss.packets > WARM and behind > self._behind):
            raise Damaged
        self._behind = max(self._behind, behind)

    def _slot(self, frame: Any) -> int | None:
        """Time of a frame in AVI, which has no display times: of the packet that brought it out of the decoder.

        With B-frames that is some packets after its own, the same number for all frames.
        """
        if frame.dts is None or self._first_slot is None:
            return None if self.end is None else self.end + 1
        if self._delay is None:
            self._delay = frame.dts - self._first_slot
        return frame.dts - self._delay

    def lost(self, promised: int, begin: float, before: float, behind: float | None) -> int:
        """Number of pictures that are missing or could not be decoded, once all were given.

        Args:
            promised: number of pictures according to the header; 0 if it does not say.
            begin: time of the first picture, in seconds.
            before: seconds from the first packet of any stream to the first picture.
            behind: seconds between the last picture and the end that the header names; None if it does not say.
        """
        loss = self._loss
        loss.finish()
        promised = loss.plausible(promised)
        if self._slotted:
            missing = max(promised - (self.last_slot + 1), 0) if promised else 0
        elif promised:
            missing = max(promised - loss.packets, 0)
        else:
            missing = loss.missing() + loss.missing_at_the_ends(begin, before, behind)
        # A broadcast may start within a group of pictures; those before its first key frame are no loss.
        within_group = self._container.format.name in BROADCAST and not loss.whole_start
        early = loss.early if within_group or not loss.broken else 0
        repeats = self._packets.repeats[self._stream.index]
        undecoded = max(loss.packets - loss.discarded - self.given - early, 0)
        undecoded = max(undecoded - repeats, min(undecoded, self._failed))
        silent = undecoded if self._stream.codec_context.name not in FEWER_FRAMES else 0
        if self._interlaced > 0.5 * self.given and silent > 0.3 * loss.packets:  # a packet for each field
            silent = 0
        return missing + (undecoded if loss.broken or missing or self.damaged else silent)
