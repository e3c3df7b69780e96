"""Restorers that ``keep.test`` compares: KEEP itself, and what it is measured against."""

from keep.baselines import (  # noqa: F401  (importing registers)
    basicsr,
    bicubic,
    frame_networks,
    keep_restorer,
    lanczos,
    per_frame,
)
