"""What will not come through unchanged, found before pass 1: one line each."""

from collections.abc import Callable
from pathlib import Path

from keep.data.mux import Source, VideoSource
from keep.data.mux.streams import Plan, plans_of
from keep.inference.video.settings import Settings
from keep.utils.errors import UserError

Check = Callable[[Source, Path, Settings], list[str]]
"""(input, output, settings) → lines for the user. Decodes nothing: ``Source`` knows the first frame already."""


def preflight(video: Source, output: Path, settings: Settings) -> list[str]:
    """One line for everything of ``video`` that will not be in ``output`` unchanged.

    Raises:
        UserError: something is lost that the user has to agree to first.
    """
    return [line for check in CHECKS for line in check(video, output, settings)]


def streams(video: Source, output: Path, settings: Settings) -> list[str]:
    """Streams that are left out, or written in another form."""
    if not isinstance(video, VideoSource):
        return []
    if settings.frames:
        return ["sound and other streams are left out: the output is a folder of frames"] if video.streams > 1 else []
    plans = plans_of(video.path, output.suffix)
    if not settings.without_sound:
        refuse_without_sound(plans, output)
    return [plan.note for plan in plans if plan.note]


def refuse_without_sound(plans: list[Plan], output: Path) -> None:
    """Raise UserError if sound can neither be copied nor transcoded."""
    for plan in plans:
        if plan.how == "refuse":
            raise UserError(f"{output}: {plan.note}; --without-sound goes on without it")


CHECKS: tuple[Check, ...] = (streams,)
"""All checks, in the order of their lines."""
