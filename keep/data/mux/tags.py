"""Tags of a file and of its streams, and chapters."""

from collections.abc import Mapping
from typing import Any

MP4 = frozenset({".mp4", ".mov", ".m4v"})
_OF_THE_FILE = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder", "duration"})
_PLAIN = frozenset(
    {
        "title", "artist", "album", "album_artist", "composer", "comment", "genre", "date", "copyright", "description",
        "synopsis", "location", "creation_time", "grouping", "lyrics", "track", "disc", "show", "episode_id", "network",
    }
)  # fmt: skip  # what MP4 has its own fields for

IN_MOV = {
    "bod": "tib", "cym": "wel", "deu": "ger", "ell": "gre", "eus": "baq", "fas": "per", "hye": "arm", "isl": "ice",
    "kat": "geo", "mkd": "mac", "msa": "may", "mya": "bur", "nld": "dut", "sqi": "alb", "swe": "sve", "zho": "chi",
}  # fmt: skip
"""Language code of ISO 639-2 → how FFmpeg calls QuickTime's number of it; FFmpeg drops the codes it does not know."""


def container_options(suffix: str, tags: Mapping[str, str]) -> dict[str, str]:
    """Options for a file with this suffix and these tags.

    In MP4 the index is moved to the front, to play while downloading. Tags that MP4 has no field for, such as Apple's
    make and model, are written by their names. Matroska gets none of FFmpeg's random numbers: the same content gives
    the same bytes.
    """
    if suffix.lower() not in MP4:
        return {"fflags": "+bitexact"}
    return {"movflags": "+faststart" + ("+use_metadata_tags" if named_tags(suffix, tags) else "")}


def named_tags(suffix: str, tags: Mapping[str, str]) -> set[str]:
    """The tags that are written by name, as the container has no field for them."""
    if suffix.lower() not in MP4:
        return set()
    known = _PLAIN | _OF_THE_FILE
    return {key for key in tags if key.lower() not in known and not key.startswith("location-")}


def add_tags(output: Any, picture: Any, inputs: Any, video: Any) -> None:
    """Copy the tags of the file and of its pictures, and the chapters."""
    picture.metadata.update({k: v for k, v in video.metadata.items() if k in ("language", "title")})
    output.metadata.update({k: v for k, v in inputs.metadata.items() if k.lower() not in _OF_THE_FILE})
    if chapters := inputs.chapters():
        output.set_chapters(chapters)


def add_comment(output: Any, words: str) -> None:
    """Add words to the comment of a file, once."""
    key = next((k for k in output.metadata if k.lower() == "comment"), "comment")
    before = output.metadata.get(key, "")
    if words not in before:
        output.metadata[key] = f"{before}\n{words}" if before else words


def describe(copy: Any, stream: Any, suffix: str) -> None:
    """Copy a stream's tags and disposition into a file with this suffix."""
    tags = {k: v for k, v in stream.metadata.items() if k in ("language", "title")}
    if suffix.lower() == ".mov" and "language" in tags:
        tags["language"] = IN_MOV.get(tags["language"], tags["language"])
    copy.metadata.update(tags)
    copy.disposition = stream.disposition
