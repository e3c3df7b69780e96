"""Video input and output, datasets of clips, and the stateless sampler."""

from keep.data import clips, sampler, video_io

__all__ = ["clips", "sampler", "video_io"]
