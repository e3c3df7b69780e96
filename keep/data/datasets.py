"""Every dataset class: importing this module registers them. A new one is added to this list.

They are not imported in the package's ``__init__``: :mod:`keep.data.tools` must start without PyTorch.
"""

from keep.data import clips, evidence, lmdb, low_quality, mixed, packed, paired, vfhq

__all__ = ["clips", "evidence", "lmdb", "low_quality", "mixed", "packed", "paired", "vfhq"]
