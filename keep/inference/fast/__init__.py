"""A faster copy of KEEP for inference: the same weights and, in float32, the same result up to rounding.

docs/benchmark_inference.md compares it with the plain network; ``scripts/bench/inference.py`` measures both.
"""

from keep.inference.fast.memory import keep_freed_memory
from keep.inference.fast.network import accelerate

__all__ = ["accelerate", "keep_freed_memory"]
