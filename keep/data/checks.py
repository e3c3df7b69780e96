"""Checks of what a dataset class returns; it may be a user's own."""

from typing import Any

import numpy as np

from keep.utils.errors import UserError


class WrongFrames(UserError):  # noqa: N818, named as it reads in an except clause
    """A dataset class returns no frames: a mistake in the class, which ``on_bad: skip`` must not hide."""


def check_frames(frames: Any, shape: tuple[int | None, ...], what: str) -> None:
    """Raise WrongFrames unless ``frames`` is a uint8 array of this shape, (T, H, W, 3); None stands for any length.

    Args:
        frames: what was returned.
        shape: the expected one.
        what: the method and the clip, for the message.
    """
    found = type(frames).__name__
    if isinstance(frames, np.ndarray):
        fits = frames.ndim == len(shape) and all(n in (m, None) for n, m in zip(shape, frames.shape, strict=True))
        if fits and frames.dtype == np.uint8 and frames.size:
            return
        found = f"{frames.dtype} {frames.shape}"
    expected = ", ".join(str(n or side) for n, side in zip(shape, "THWC", strict=True))
    raise WrongFrames(f"{what}: returned {found}, expected uint8 ({expected}) RGB")


def check_list(clips: Any, kind: type, what: str) -> None:
    """Raise WrongFrames unless ``clips`` is a list of ``kind``."""
    if not isinstance(clips, list) or not all(isinstance(c, kind) for c in clips):
        raise WrongFrames(f"{what}: must return a list of {kind.__name__}")
