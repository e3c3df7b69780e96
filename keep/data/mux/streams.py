"""Decides, before anything is written, what becomes of each stream of a video file in another container."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av
import av.error
from av.stream import Disposition

from keep.data.mux.sound import add_audio, add_copy, layout_of
from keep.data.mux.source import open_video, video_stream
from keep.data.mux.tags import named_tags

FORMATS = {".mp4": "mp4", ".m4v": "ipod", ".mov": "mov", ".mkv": "matroska"}
"""Suffix of a written file → its muxer."""
How = Literal["copy", "transcode", "attach", "tag", "leave", "refuse"]


@dataclass(frozen=True)
class Plan:
    """What becomes of one stream.

    Attributes:
        index: number of the stream in the input.
        name: for messages: ``audio stream 1 (wmav2)``.
        how: ``copy``: its packets are copied; ``transcode``: decoded, and written with ``encoder``; ``attach``: written
            as an attachment; ``tag``: written as a tag of the pictures; ``leave``: left out; ``refuse``: sound that can
            neither be copied nor transcoded.
        encoder: lossless encoder of a transcoded stream.
        note: one line for the user, if the stream does not come through unchanged.
        cover: whether it is the picture of a file's cover.
    """

    index: int
    name: str
    how: How
    encoder: str = ""
    note: str = ""
    cover: bool = False


def plans_of(path: Path, suffix: str) -> list[Plan]:
    """:func:`plan_streams` of a file."""
    with open_video(path) as inputs:
        return plan_streams(inputs, video_stream(inputs, path), suffix)


def plan_streams(inputs: Any, video: Any, suffix: str) -> list[Plan]:
    """The plan of every stream but the restored pictures.

    Args:
        inputs: the container to read.
        video: its restored video stream.
        suffix: suffix of the written file, one of ``FORMATS``.
    """
    named = bool(named_tags(suffix, inputs.metadata))
    others = [stream for stream in inputs.streams if stream.index != video.index]
    return [plan_stream(stream, suffix.lower(), named) for stream in others]


def plan_stream(stream: Any, suffix: str, named: bool = False) -> Plan:
    """The plan of one stream. ``named``: tags are written by name; MP4 has no place for a cover beside them."""
    context = stream.codec_context
    codec = context.codec.canonical_name if context is not None else _name_without_decoder(stream)
    name = f"{stream.type} stream {stream.index} ({codec})"
    cover = stream.type == "video" and bool(stream.disposition & Disposition.attached_pic)
    if cover:
        name = f"cover art {stream.index} ({codec})"
    if stream.type == "data" and "timecode" in stream.metadata:
        return Plan(stream.index, name, "tag")
    if suffix == ".mkv" and (cover or stream.type == "attachment"):
        return Plan(stream.index, name, "attach")
    if not (cover and named) and _fits(stream, suffix, cover):
        restored = "" if cover or stream.type != "video" else f"{name}: copied, not restored"
        return Plan(stream.index, name, "copy", note=restored, cover=cover)
    if stream.type != "audio":
        return Plan(stream.index, name, "leave", note=f"{name}: left out: it does not fit into {suffix}")
    encoder = _lossless(context, suffix) if context is not None else ""
    if encoder:
        note = f"{name}: written as {encoder}, without loss: {codec} does not fit into {suffix}"
        return Plan(stream.index, name, "transcode", encoder, note)
    return Plan(
        stream.index, name, "refuse", note=f"{name}: left out: it can neither be copied into {suffix} nor decoded"
    )


def takes(suffix: str, add: Any) -> bool:
    """Whether a container takes what ``add(output)`` adds to it; only a header is written, to memory."""
    try:
        with av.open(io.BytesIO(), "w", format=FORMATS[suffix]) as output:
            add(output)
            output.start_encoding()
    except (ValueError, av.error.FFmpegError):
        return False
    return True


def _fits(stream: Any, suffix: str, cover: bool) -> bool:
    if stream.type not in ("audio", "subtitle", "video"):
        return False
    context = stream.codec_context
    if context is None or (cover and suffix == ".mov"):  # FFmpeg writes the header and loses the picture
        return False
    if stream.type == "subtitle" and suffix != ".mkv":  # FFmpeg accepts others and then fails at the packets
        return context.name in ("mov_text", "dvdsub", "dvd_subtitle")
    if context.name.startswith("pcm_") and suffix == ".mp4" and "channels" in layout_of(context):
        return False  # MP4 would fail at its end: see add_copy
    return takes(suffix, lambda output: add_copy(output, stream))


def _lossless(context: Any, suffix: str) -> str:
    """The first lossless encoder for the decoder's samples that the container takes; empty where there is none."""
    if context.format is None or not context.rate:
        return ""
    pcm = {"u8": "pcm_u8", "s16": "pcm_s16le", "s32": "pcm_s32le", "flt": "pcm_f32le", "dbl": "pcm_f64le"}
    exact = pcm.get(context.format.name.removesuffix("p"), "")
    for encoder in (exact, "flac", "alac") if suffix in (".mkv", ".mov") else ("flac", "alac"):
        if encoder and takes(suffix, lambda output, encoder=encoder: add_audio(output, encoder, context)):
            return encoder
    return ""


def _name_without_decoder(stream: Any) -> str:
    return stream.metadata.get("filename") or stream.metadata.get("handler_name") or "unknown codec"
