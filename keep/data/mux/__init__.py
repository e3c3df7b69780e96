"""A video as a stream of frames with their times, and its twin written with everything else of the file copied over.

One frame is in memory at a time. All frames are uint8 (H, W, 3) RGB, upright (rotation applied). Frame times, rotation,
colour tags, pixel shape, audio, subtitles, chapters and metadata of the source go into the written file.
:mod:`keep.data.video_io` reads by frame number and refuses damaged files; here what can be decoded is given, and what
cannot is counted.
"""

from keep.data.mux.colours import Colours
from keep.data.mux.folder import RATES, FrameFolder, FrameWriter, list_images
from keep.data.mux.remux import remux
from keep.data.mux.source import TimedFrame, VideoSource
from keep.data.mux.writer import WRITTEN, Codec, Source, VideoWriter

__all__ = [
    "RATES", "WRITTEN", "Codec", "Colours", "FrameFolder", "FrameWriter", "Source", "TimedFrame", "VideoSource",
    "VideoWriter", "list_images", "remux",
]  # fmt: skip
