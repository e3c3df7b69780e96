"""The result for all videos: the list of their clips, and the rejects counted by reason."""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from keep.data.tools.collect_source import Source
from keep.utils.io import write_file
from keep.utils.tables import console_table

ADVICE = {
    "no face": ("", max, "no face was found in {n}: try another --detector, or a larger --longest-side"),
    "too short": ("length", max, "the longest of {n} stretches has {best} frames: lower --min-length ({min_length})"),
    "face too small": ("face_px", max, "the largest of {n} faces has {best} px: lower --min-face ({min_face:g})"),
    "face too uncertain": ("score", max, "the best of {n} scores is {best}: lower --min-score ({min_score:g})"),
    "too far beyond the frame": (
        "outside", min, "of {n} crops the smallest share outside is {best}: raise --max-outside ({max_outside:g})"
    ),
    "too blurred": (
        "sharpness", max, "the sharpest of {n} clips has {best}: lower --min-sharpness ({min_sharpness:g})"
    ),
}  # fmt: skip
"""Reason → (the value of a reject that the limit applies to, which function finds the nearest to the limit, the advice
if no clip was kept)."""


def write_reports(sources: list[Source], out: Path, settings: dict[str, Any]) -> str:
    """Write manifest.json and report.json; returns a summary to print."""
    clips = [
        {"folder": current_folder(c["clip"], out), "source": str(s.path), "detector": settings["detector"], **c}
        for s in sources
        for c in s.clips
    ]
    reasons = Counter(r["reason"] for s in sources for r in s.rejects)
    problems = {str(s.path): s.problem for s in sources if s.problem}
    totals = {
        "videos": len(sources), "unreadable": len(problems), "frames": sum(s.frames for s in sources),
        "shots": sum(s.shots for s in sources), "tracks": sum(s.tracks for s in sources), "clips": len(clips),
        "clip_frames": sum(c["length"] for c in clips),
    }  # fmt: skip
    rejects = [{"source": str(s.path), **r} for s in sources for r in s.rejects]
    write_json(out / "manifest.json", {"settings": settings, "clips": clips})
    write_json(out / "report.json", {"totals": totals, "reasons": reasons, "unreadable": problems, "rejects": rejects})

    lines = [table(sources)]
    lines += [f"{path}: {problem}" if path not in problem else problem for path, problem in problems.items()]
    moved = sum(clip["folder"] is None for clip in clips)
    if moved:
        lines.append(
            f"{moved} clips are no longer in {out / 'clips'} or {out / 'val'} and were not made again; "
            f"to make them again, remove the files of their videos in {out / 'sources'}"
        )
    in_val = sum(clip["folder"] == "val" for clip in clips)
    lines.append(
        f"{out}: {totals['clips']} clips ({in_val} in val), {totals['clip_frames']} frames, from "
        f"{totals['tracks']} tracks in {totals['shots']} shots of {totals['videos']} videos; "
        f"rejected: {count_words(reasons) or 'nothing'}" + (f"; {len(problems)} unreadable" if problems else "")
    )
    return "\n".join(lines)


def table(sources: list[Source]) -> str:
    """A row a video."""
    rows = [
        {
            "video": s.name, "frames": s.frames, "shots": s.shots, "tracks": s.tracks, "clips": len(s.clips),
            "rejected": "unreadable" if s.problem else count_words(Counter(r["reason"] for r in s.rejects)),
        }
        for s in sources
    ]  # fmt: skip
    return console_table(rows, ["video", "frames", "shots", "tracks", "clips", "rejected"])


def explain_no_clips(sources: list[Source], args: argparse.Namespace) -> str:
    """For every reason the reject nearest to its limit, and the option that would keep it."""
    rejects = [reject for source in sources for reject in source.rejects]
    parts = []
    for reason, count in Counter(r["reason"] for r in rejects).most_common():
        if reason in ADVICE:
            key, nearest, advice = ADVICE[reason]
            best = nearest(r[key] for r in rejects if r["reason"] == reason) if key else None
            n = f"{count} video{'s' * (count > 1)}" if reason == "no face" else count
            parts.append(advice.format(n=n, best=best, **vars(args)))
        else:
            parts.append(f"{count} {reason}")
    unreadable = sum(bool(source.problem) for source in sources)
    if unreadable:
        parts.append(f"{unreadable} of {len(sources)} videos cannot be read")
    return "; ".join(parts)


def current_folder(clip: str, out: Path) -> str | None:
    """The folder that holds a clip now: ``clips`` or ``val``; None if it is in neither."""
    return next((folder for folder in ("clips", "val") if (out / folder / clip).is_file()), None)


def write_json(path: Path, content: Any) -> None:
    write_file(path, json.dumps(content, indent=1).encode())


def count_words(reasons: Counter[str]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
