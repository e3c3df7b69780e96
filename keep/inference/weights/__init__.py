"""Weight files of KEEP: read in any layout, built into a network of the right size, and written.

Supported: the public checkpoints (v0.1.0 and v1.0.0), BasicSR's ``params`` / ``params_ema``, our training checkpoints
and our safetensors files. See ``docs/weights.md``.
"""

from keep.inference.weights.building import build_arch, build_network, load_keep, stored_arch
from keep.inference.weights.reading import DEFAULT, PUBLISHED, SHIPPED, Params, Weights, find, read
from keep.inference.weights.writing import save_safetensors, write

__all__ = [
    "DEFAULT", "PUBLISHED", "SHIPPED", "Params", "Weights", "build_arch", "build_network", "find", "load_keep", "read",
    "save_safetensors", "stored_arch", "write",
]  # fmt: skip
