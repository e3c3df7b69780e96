"""KEEP: Kalman-Inspired Feature Propagation for Video Face Super-Resolution: training and restoration."""

from typing import TYPE_CHECKING, Any

from keep.utils.version import __version__

if TYPE_CHECKING:
    from keep.inference.api import Restorer, load_restorer
    from keep.inference.hub import KEEP

__all__ = ["KEEP", "Restorer", "__version__", "load_restorer"]


def __getattr__(name: str) -> Any:
    """Import the Python API on first use, so that ``import keep`` stays fast."""
    if name in ("Restorer", "load_restorer"):
        from keep.inference import api

        return getattr(api, name)
    if name == "KEEP":
        from keep.inference.hub import KEEP

        return KEEP
    raise AttributeError(f"module 'keep' has no attribute {name!r}")
