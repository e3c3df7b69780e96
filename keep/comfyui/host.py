"""What the node uses of ComfyUI, where the host has it: the progress bar and the Cancel button."""

import importlib
from typing import Any

from keep.inference.video.settings import Progress


def reporter() -> Progress:
    """A :class:`Progress` that moves ComfyUI's progress bar and raises the host's exception once Cancel is pressed."""
    bar_class = _find("comfy.utils", "ProgressBar")
    check = _find("comfy.model_management", "throw_exception_if_processing_interrupted")
    bar = bar_class(1) if bar_class else None

    def report(what: str, done: int, total: int | None, tracks: list[int]) -> None:
        if check:
            check()
        if bar and total:
            bar.update_absolute(done, total)

    return report


def _find(module: str, name: str) -> Any:
    """The attribute of the host's module, or None."""
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
