"""The networks. Importing this package registers them in :data:`keep.config.registry.ARCHS`."""

from keep.archs import (
    basicvsr,
    basicvsrpp,
    cfa,
    cft,
    code_transformer,
    codeformer,
    confidence,
    discriminators,
    edvr,
    kalman,
    keep,
    vqgan,
)

__all__ = [
    "basicvsr", "basicvsrpp", "cfa", "cft", "code_transformer", "codeformer", "confidence", "discriminators", "edvr",
    "kalman", "keep", "vqgan",
]  # fmt: skip
