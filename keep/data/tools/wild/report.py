"""All videos together: the list of their clips, and what was left out and why."""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from keep.data.tools.wild.source import Source
from keep.utils.io import write_file
from keep.utils.visual import console_table

ADVICE = {
    "no face": ("", max, "no face was found in {n}: try another --detector, or a larger --longest-side"),
    "too short": ("length", max, "the longest of {n} stretches has {best} frames: lower --min-length ({min_length})"),
    "face too small": ("face_px", max, "the largest of {n} faces has {best} px: lower --min-face ({min_face:g})"),
    "face too uncertain": ("score", max, "the best of {n} scores is {best}: lower --min-score ({min_score:g})"),
    "too far beyond the frame": (
        "outside", min, "of {n} crops the least lies {best} beyond the frame: raise --max-outside ({max_outside:g})"
    ),
    "too blurred": (
        "sharpness", max, "the sharpest of {n} clips has {best}: lower --min-sharpness ({min_sharpness:g})"
    ),
}  # fmt: skip
"""Reason → (what of a reject tells how near it was, which of them was nearest, what to say if nothing was kept)."""


def report(sources: list[Source], out: Path, settings: dict[str, Any]) -> str:
    """Write manifest.json and report.json; the summary as text."""
    reasons = Counter(r["reason"] for s in sources for r in s.rejects)
    problems = {str(s.path): s.problem for s in sources if s.problem}
    clips = [
        {"folder": place_of(c["clip"], out), "source": str(s.path), "detector": settings["detector"], **c}
        for s in sources
        for c in s.clips
    ]
    totals = {
        "videos": len(sources), "unreadable": len(problems), "frames": sum(s.frames for s in sources),
        "shots": sum(s.shots for s in sources), "tracks": sum(s.tracks for s in sources), "clips": len(clips),
        "clip_frames": sum(c["length"] for c in clips),
    }  # fmt: skip
    rejects = [{"source": str(s.path), **r} for s in sources for r in s.rejects]
    write_json(out / "manifest.json", {"settings": settings, "clips": clips})
    write_json(out / "report.json", {"totals": totals, "reasons": reasons, "unreadable": problems, "rejects": rejects})
    rows = [
        {
            "video": s.name, "frames": s.frames, "shots": s.shots, "tracks": s.tracks, "clips": len(s.clips),
            "left out": "unreadable" if s.problem else _counted(Counter(r["reason"] for r in s.rejects)),
        }
        for s in sources
    ]  # fmt: skip
    lines = [console_table(rows, ["video", "frames", "shots", "tracks", "clips", "left out"])]
    lines += [f"{path}: {problem}" if path not in problem else problem for path, problem in problems.items()]
    in_val = sum(clip["folder"] == "val" for clip in clips)
    gone = [clip for clip in clips if clip["folder"] is None]
    if gone:
        lines.append(
            f"{len(gone)} clips are no longer in {out / 'clips'} or {out / 'val'}, and were not made again; "
            f"to have them made, remove their videos' files in {out / 'sources'}"
        )
    lines.append(
        f"{out}: {totals['clips']} clips ({in_val} in val), {totals['clip_frames']} frames, of "
        f"{totals['tracks']} tracks in {totals['shots']} shots of {totals['videos']} videos; "
        f"left out: {_counted(reasons) or 'nothing'}" + (f"; {len(problems)} unreadable" if problems else "")
    )
    return "\n".join(lines)


def why_none(sources: list[Source], args: argparse.Namespace) -> str:
    """What was nearest to becoming a clip, for every reason, and which option would let it in."""
    rejects = [reject for source in sources for reject in source.rejects]
    told = []
    for reason, times in Counter(r["reason"] for r in rejects).most_common():
        if reason in ADVICE:
            key, nearest, line = ADVICE[reason]
            best = nearest(r[key] for r in rejects if r["reason"] == reason) if key else None
            n = f"{times} video{'s' * (times > 1)}" if reason == "no face" else times
            told.append(line.format(n=n, best=best, **vars(args)))
        else:
            told.append(f"{times} {reason}")
    unreadable = sum(bool(source.problem) for source in sources)
    return "; ".join(told + [f"{unreadable} of {len(sources)} videos cannot be read"] * bool(unreadable))


def place_of(clip: str, out: Path) -> str | None:
    """Where a clip is now: ``clips`` or ``val``; None if it was taken away."""
    return next((place for place in ("clips", "val") if (out / place / clip).is_file()), None)


def write_json(path: Path, content: Any) -> None:
    write_file(path, json.dumps(content, indent=1).encode())


def _counted(reasons: Counter[str]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
