"""Losses, registered in ``LOSSES``. Each has a ``weight`` and returns the *unweighted* scalar."""

from keep.losses import codebook, gan, identity, perceptual, pixel, regions, temporal

__all__ = ["codebook", "gan", "identity", "perceptual", "pixel", "regions", "temporal"]
