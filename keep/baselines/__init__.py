"""Restorers that ``keep.test`` compares: KEEP itself, and what it is measured against."""

from keep.baselines import bicubic, keep_restorer  # noqa: F401  (importing registers)
