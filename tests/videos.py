"""Test videos made with PyAV, and readers of their content."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from keep.data.mux import VideoSource, VideoWriter

TIMES = [0, 40, 80, 200, 233, 300, 520, 560, 600, 680, 690, 720]  # ms: a variable frame rate
SUBTITLES = "1\n00:00:00,100 --> 00:00:00,400\nfirst\n\n2\n00:00:00,500 --> 00:00:00,700\nsecond\n"


def make(
    path: Path,
    frames: np.ndarray,
    times: list[int] | None = None,
    audio: bool = False,
    subtitles: str = "",
    rotation: int = 0,
    colours: tuple[int, int, int, int] | None = None,
    start: int = 0,
    pix_fmt: str = "yuv420p",
    codec: str = "libx264",
    mirrored: bool = False,
    **options: str,
) -> Path:
    """A video of ``frames`` at ``times`` (ms; every 40 by default) from ``start``, with the given streams and tags."""
    movflags = options.pop("movflags", "")
    with av.open(str(path), "w", options={"movflags": movflags} if movflags else {}) as output:
        given = {"crf": "12", **options} if codec == "libx264" else options
        video: Any = output.add_stream(codec, rate=25, options=given)
        video.height, video.width, video.pix_fmt = *frames.shape[1:3], pix_fmt
        video.codec_context.time_base = Fraction(1, 1000)
        if colours:
            context = video.codec_context
            context.colorspace, context.color_primaries, context.color_trc, context.color_range = colours
        if rotation or mirrored:
            video.set_display_rotation(rotation, hflip=mirrored)
        sound: Any = output.add_stream("aac", rate=16000, layout="mono") if audio else None
        text = None
        if subtitles:
            srt = av.open(subtitles)
            text = output.add_stream_from_template(srt.streams.subtitles[0])
            text.metadata["language"] = "swe"
        for i, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if colours:
                frame = frame.reformat(format="yuv420p", dst_colorspace=colours[0], dst_color_range=colours[3])
            frame.pts, frame.time_base = start + (times[i] if times else 40 * i), Fraction(1, 1000)
            output.mux(video.encode(frame))
        output.mux(video.encode())
        if sound is not None:
            for i in range(max(14, times[-1] // 64 + 2 if times else 40 * len(frames) // 64)):
                wave = np.sin(np.arange(1024 * i, 1024 * (i + 1)) / 8)[None].astype(np.float32)
                frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
                frame.rate, frame.pts = 16000, start * 16 + 1024 * i
                output.mux(sound.encode(frame))
            output.mux(sound.encode())
        if text is not None:
            for packet in srt.demux():
                if packet.size:
                    packet.stream = text
                    output.mux(packet)
            srt.close()
    return path


def copy(source: Path, target: Path, **options: Any) -> VideoWriter:
    """Decode ``source`` and write it again."""
    video = VideoSource(source)
    with VideoWriter(target, video, (video.height, video.width), **options) as writer:
        for frame in video:
            writer.write(frame.image, frame)
    return writer


def images_of(path: Path) -> np.ndarray:
    return np.stack([frame.image for frame in VideoSource(path)]).astype(int)


def times_of(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        frames: Any = container.decode(video=0)
        return [frame.pts * frame.time_base for frame in frames]


def packets_of(path: Path, kind: str) -> list[tuple[bytes, Fraction]]:
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[0]
        return [(bytes(p), p.pts * p.time_base) for p in container.demux(stream) if p.size]
