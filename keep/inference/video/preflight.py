"""What will not come through unchanged, found before pass 1: one line each."""

from collections.abc import Callable
from pathlib import Path

from keep.data.mux import Layout, Source, VideoSource
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


def fields(video: Source, output: Path, settings: Settings) -> list[str]:
    """What happens to interlaced video."""
    if not video.interlaced:
        return []
    if video.keeps_fields:
        return ["interlaced: it stays interlaced; faces are restored in progressive frames, one for both fields"]
    rate = f"{float(video.fps):g} frames a second"
    return [f"interlaced: deinterlaced by bwdif, written progressive, {rate} (--deinterlace, --double-rate)"]


def losses(given: Layout, out: Layout, settings: Settings) -> list[str]:
    """What pixels hold in the input, ``given``, and not in the output, ``out``."""
    lines, codec = [], settings.codec
    video = codec in ("h264", "h265") and not settings.frames
    if out.transfer != given.transfer:
        how = "" if settings.frames else "; --codec h265 keeps it"
        lines.append(f"HDR ({given.transfer.upper()}): tone-mapped to SDR, {out.bits} bits a channel{how}")
    elif out.bits < given.bits:
        how = "--codec h265 keeps 10, ffv1 all" if codec == "h264" else "--codec ffv1 keeps all"
        lines.append(f"{given.bits} bits a channel: written with {out.bits} ({how})")
    elif given.transfer != "sdr" and codec == "ffv1":
        lines.append("HDR: mastering display and light level are not stored with ffv1")
    if given.alpha and not out.alpha:
        lines.append("the alpha channel is left out (--codec ffv1 or --frames keeps it)")
    if given.full_chroma and video:
        lines.append("chroma is stored for every fourth pixel, 4:2:0 (--codec ffv1 keeps all)")
    return lines


def refuse_without_sound(plans: list[Plan], output: Path) -> None:
    """Raise UserError if sound can neither be copied nor transcoded."""
    for plan in plans:
        if plan.how == "refuse":
            raise UserError(f"{output}: {plan.note}; --without-sound goes on without it")


CHECKS: tuple[Check, ...] = (streams, fields)
"""All checks, in the order of their lines."""
