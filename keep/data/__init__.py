"""Video input and output, datasets of clips, and the stateless sampler."""

from keep.data import clips, lmdb, packed, paired, sampler, vfhq, video_io

__all__ = ["clips", "lmdb", "packed", "paired", "sampler", "vfhq", "video_io"]
