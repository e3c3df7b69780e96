"""Reads a video as a stream of timed frames, and writes another one with all other content of the file copied.

One frame is in memory at a time. All frames are uint8 (H, W, 3) RGB, upright (rotation applied). Frame times, rotation,
colour tags, pixel shape, audio, subtitles, chapters and metadata are copied from the source to the written file.

:mod:`keep.data.video_io` reads by frame number and refuses damaged files. This package decodes as much of a damaged
file as possible and counts the lost frames.
"""

from keep.data.mux.colours import Colours
from keep.data.mux.folder import RATES, FrameFolder, FrameWriter, list_images
from keep.data.mux.layout import Codec, Layout
from keep.data.mux.remux import remux
from keep.data.mux.source import TimedFrame, VideoSource
from keep.data.mux.writer import WRITTEN, Source, VideoWriter

__all__ = [
    "RATES", "WRITTEN", "Codec", "Colours", "FrameFolder", "FrameWriter", "Layout", "Source", "TimedFrame",
    "VideoSource", "VideoWriter", "list_images", "remux",
]  # fmt: skip
