"""Losses, registered in ``LOSSES``. Each has a ``weight`` and returns the *unweighted* scalar."""

from keep.losses import codebook, gan, perceptual, pixel, regions, temporal

__all__ = ["codebook", "gan", "perceptual", "pixel", "regions", "temporal"]
