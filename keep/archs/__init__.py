"""The networks. Importing this package registers them in :data:`keep.config.registry.ARCHS`."""

from keep.archs import cfa, cft, code_transformer, codeformer, confidence, discriminators, kalman, keep, vqgan

__all__ = [
    "cfa", "cft", "code_transformer", "codeformer", "confidence", "discriminators", "kalman", "keep", "vqgan",
]  # fmt: skip
