"""Restorers that ``keep.test`` compares: KEEP and the baselines."""

from keep.baselines import (  # noqa: F401  (importing registers)
    bicubic,
    clip_networks,
    frame_networks,
    keep_restorer,
    lanczos,
    per_frame,
)
