"""The clusters of a Matroska file: where its pictures are, and whether its structure is whole."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

SEGMENT, CLUSTER = 0x18538067, 0x1F43B675
KNOWN = frozenset(
    {CLUSTER, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367, 0xEC, 0xBF}
)
"""Elements in a segment: cluster, seek head, information, tracks, cues, attachments, chapters, tags, void, checksum."""
LONG = re.compile(b"|".join(re.escape(name.to_bytes(4)) for name in sorted(KNOWN) if name > 0xFF), re.DOTALL)
CHUNK = 1 << 20  # bytes searched at once


@dataclass(frozen=True)
class Clusters:
    """The extent of a file's clusters.

    Attributes:
        begin: position of the first cluster's content; None if none was found. If damage comes before the first
            cluster, the position of the damage.
        end: end of the last cluster that was found, or of the damage behind it.
        whole: every element up to the end of the file is one of Matroska's. True also where sizes are not known, as in
            live recordings.
        cut_short: the file is shorter than its elements say.
    """

    begin: int | None
    end: int
    whole: bool
    cut_short: bool


def read_clusters(path: Path) -> Clusters:
    """Walk over the top elements of a file; contents are skipped. Behind damage, go on at the next element."""
    size, begin, end, whole, cut_short = path.stat().st_size, None, 0, True, False
    with path.open("rb") as file:
        at, kind, length = 0, *_element(file)
        while kind and length is not None and kind != SEGMENT and at < 1024:  # the header
            at = file.seek(min(file.tell() + length, size))
            kind, length = _element(file)
        limit = size if length is None else min(size, file.tell() + length)
        cut_short = length is not None and file.tell() + length > size
        while (at := file.tell()) < limit:
            kind, length = _element(file)
            if kind not in KNOWN:
                whole, begin = False, at if begin is None else begin
                end = file.seek(_next_element(file, at, limit))  # what is lost may be pictures
                continue
            if length is None:  # live: sizes are not known
                break
            if kind == CLUSTER:
                begin = file.tell() if begin is None else begin
                end = file.tell() + length
            cut_short |= file.tell() + length > size
            file.seek(min(file.tell() + length, size))
    return Clusters(begin, end, whole, cut_short)


def _next_element(file: BinaryIO, begin: int, limit: int) -> int:
    """Place of the first element with a name of four bytes behind ``begin``; ``limit`` if there is none."""
    at = begin + 1
    while at < limit:
        file.seek(at)
        if found := LONG.search(file.read(min(CHUNK, limit - at))):
            return at + found.start()
        at += CHUNK - 3
    return limit


def _element(file: BinaryIO) -> tuple[int, int | None]:
    """Name and size of the next element; size None: not known. (0, 0) at the end or for nonsense."""
    name, length = _number(file, keep_marker=True), _number(file, keep_marker=False)
    if name is None or length is None:
        return 0, 0
    return name, None if length < 0 else length


def _number(file: BinaryIO, keep_marker: bool) -> int | None:
    """EBML's number of variable length: −1 if all its bits are set, None at the end of the file or for nonsense."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    extra = 8 - first[0].bit_length()
    rest = file.read(extra)
    value = int.from_bytes(first + rest)
    bits = 7 * (extra + 1)
    if keep_marker:
        return value
    value &= (1 << bits) - 1
    return -1 if value == (1 << bits) - 1 else value
