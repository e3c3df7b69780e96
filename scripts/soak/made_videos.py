"""Small intact videos in six containers, made with PyAV."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

FRAMES, SIZE = 40, (48, 64)
KINDS: dict[str, tuple[str, str]] = {
    ".mp4": ("libx264", "aac"), ".mkv": ("libx264", "aac"), ".mov": ("libx264", "pcm_s16le"), ".ts": ("libx264", "aac"),
    ".avi": ("mpeg4", "mp2"), ".webm": ("libvpx", "libopus"),
}  # fmt: skip
"""Suffix → encoders of pictures and sound."""
OPTIONS = {
    # With its macroblock tree, x264 does not write the same every time.
    "libx264": {"preset": "veryfast", "threads": "1", "x264-params": "no-mbtree=1"},
    "libvpx": {"deadline": "good", "cpu-used": "5", "auto-alt-ref": "0"},  # "realtime" depends on the time
}
RATE = 48_000


@dataclass(frozen=True)
class Made:
    """An intact video.

    Attributes:
        path: the file.
        frames: number of its frames.
    """

    path: Path
    frames: int


def make_videos(folder: Path) -> list[Made]:
    """Four videos for each container: with and without sound and B-frames. Existing ones are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for suffix in KINDS:
        for number in range(4):
            path = folder / f"{number}{suffix}"
            if not path.exists():
                make_video(path, sound=number % 2 == 0, b_frames=2 * (number // 2))
            made.append(Made(path, FRAMES))
    return made


def make_video(path: Path, sound: bool, b_frames: int) -> None:
    """A texture that moves, at 25 frames a second, with a tone."""
    pictures, tone = KINDS[path.suffix]
    options = {"g": "10", "bf": str(b_frames)} | OPTIONS.get(pictures, {})
    # Exact: no random identifiers. The same seed must damage the same bytes.
    container = {"fflags": "+bitexact"} | ({"movflags": "faststart"} if path.suffix in (".mp4", ".mov") else {})
    with av.open(str(path), "w", options=container) as output:
        video: Any = output.add_stream(pictures, rate=25, options=options)
        video.height, video.width, video.pix_fmt = *SIZE, "yuv420p"
        video.codec_context.thread_count = 1
        audio: Any = output.add_stream(tone, rate=RATE, layout="mono") if sound else None
        image = cv2.GaussianBlur(np.random.default_rng(0).uniform(0, 255, (*SIZE, 3)).astype(np.float32), (0, 0), 2)
        image = (4 * (image - 128) + 128).clip(0, 255).astype(np.uint8)
        done = 0
        for t in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(np.roll(image, (t, 2 * t), (0, 1)), format="rgb24")
            frame.pts, frame.time_base = t, Fraction(1, 25)
            output.mux(video.encode(frame))
            if audio is not None:
                done = _add_tone(output, audio, done, (t + 1) * RATE // 25)
        output.mux(video.encode())
        if audio is not None:
            output.mux(audio.encode())


def _add_tone(output: Any, audio: Any, done: int, until: int) -> int:
    """Write the samples from ``done`` to about ``until``; the number written so far."""
    resampler = av.AudioResampler(audio.format, "mono", RATE)
    size = audio.codec_context.frame_size or 1024
    while done + size <= until:
        wave = (9000 * np.sin(np.arange(done, done + size) / 9)).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
        frame.rate, frame.pts, frame.time_base = RATE, done, Fraction(1, RATE)
        for ready in resampler.resample(frame):
            output.mux(audio.encode(ready))
        done += size
    return done
