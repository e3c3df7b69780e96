"""Names of the files that a run writes, and checks that none of them overwrites another."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from keep.data.mux import WRITTEN, list_images
from keep.data.video_io import VIDEO_SUFFIXES
from keep.inference.video.settings import Settings
from keep.utils.errors import UserError


def list_jobs(source: Path, output: Path, frames: bool, codec: str) -> list[tuple[Path, Path]]:
    """(input, output) of every video that IN and OUT of the command line name.

    Args:
        source: IN: a video, a folder of frames, or a folder of videos.
        output: OUT: a video or a folder.
        frames: folders of frames are written instead of videos.
        codec: codec of the videos.

    Raises:
        UserError: IN is missing or has nothing to restore; OUT is a file although IN has several videos; or OUT has a
            suffix that cannot be written.
    """
    _refuse_pipes(source, output)
    if not source.exists():
        raise UserError(f"{source}: no such file or folder")
    _check_suffix(output, frames)
    to_file = output.suffix.lower() in WRITTEN and not output.is_dir()
    videos = sorted(f for f in source.rglob("*") if f.suffix.lower() in VIDEO_SUFFIXES and not f.name.startswith("."))
    if source.is_file() or not videos:
        if source.is_dir() and not list_images(source):
            raise UserError(f"{source}: contains neither videos nor images")
        # A folder of frames becomes a folder of frames, unless OUT is named as a video.
        complete = to_file or frames or source.is_dir()
        return [(source, output if complete else output / _video_name(source, codec))]
    if to_file:
        raise UserError(f"{output}: {source} contains {len(videos)} videos; name a folder for the output")
    if output.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{output}: lies inside {source}; name a folder outside of it")
    return list(zip(videos, _unique_outputs(videos, source, output, frames, codec), strict=True))


def other_files(source: Path) -> list[Path]:
    """Files of a folder of videos that are none, hidden ones left out."""
    if not source.is_dir():
        return []
    files = sorted(f for f in source.rglob("*") if f.is_file() and not f.name.startswith("."))
    others = [f for f in files if f.suffix.lower() not in VIDEO_SUFFIXES]
    return others if len(others) < len(files) else []


def refuse_existing(output: Path, settings: Settings) -> None:
    """Raise UserError if a file that a run writes exists already."""
    frames = settings.frames or output.suffix.lower() not in VIDEO_SUFFIXES  # the writer of frames has its own check
    extra = extras_of(output, settings)
    for path in extra if frames else (output, *extra):
        if path.exists():
            raise UserError(f"{path}: exists already; name another output, or replace it with --overwrite")


def share(jobs: list[tuple[Path, Path]], rank: int, world: int) -> list[tuple[Path, Path]]:
    """The jobs of one rank: sorted by file size, then dealt out in turn."""

    def size(path: Path) -> int:
        return path.stat().st_size if path.is_file() else 0

    return sorted(jobs, key=lambda job: -size(job[0]))[rank::world]


def extras_of(output: Path, settings: Settings) -> list[Path]:
    """What a run writes beside the output."""
    extra = [comparison_of(output)] * settings.compare + [plots_of(output)] * settings.plots
    if settings.confidence is not None:
        extra += [map_of(output, settings.confidence), record_of(output)]
    return extra


def map_of(output: Path, confidence: str) -> Path:
    """Path of the video of the expected error."""
    if confidence not in ("map", "overlay"):
        return Path(confidence)
    return _video_beside(output, "confidence")


def record_of(output: Path) -> Path:
    """Path of the record of the expected error, JSON."""
    name = output.stem if output.suffix.lower() in VIDEO_SUFFIXES else output.name
    return output.with_name(f"{name}.confidence.json")


def comparison_of(output: Path) -> Path:
    """Path of the side-by-side video of an output."""
    return _video_beside(output, "compare")


def plots_of(output: Path) -> Path:
    """Folder of the landmark plots of an output."""
    return output.with_name(f"{output.stem if output.suffix.lower() in VIDEO_SUFFIXES else output.name}.plots")


def refuse_overwriting(jobs: Iterable[tuple[Path, Path]], settings: Settings) -> None:
    """Check all files that a run over these (input, output) pairs writes.

    Raises:
        UserError: one of them is an input, or would be written twice.
    """
    jobs = list(jobs)
    inputs = {source.resolve() for source, _ in jobs}
    written: dict[Path, Path] = {}
    for source, output in jobs:
        for path in (output, *extras_of(output, settings)):
            real = path.resolve()
            if real in inputs:
                which = "the input itself" if real == source.resolve() else "an input"
                raise UserError(f"{path}: is {which}; name another output")
            if real in written:
                raise UserError(
                    f"{path}: would be written for both {written[real]} and {source}; restore them separately"
                )
            written[real] = source


def _video_beside(output: Path, word: str) -> Path:
    """Path of another video of an output, in the same container; beside a folder, whatever its name, in Matroska."""
    if output.suffix.lower() in WRITTEN and not output.is_dir():
        return output.with_name(f"{output.stem}.{word}{output.suffix}")
    return output.with_name(f"{output.name}.{word}.mkv")


def _refuse_pipes(source: Path, output: Path) -> None:
    if str(source) == "-" or source.is_fifo() or source.is_char_device():
        raise UserError(f"{source}: a video is read twice, so it cannot come from a pipe; save it to a file first")
    if str(output) == "-" or output.is_fifo() or output.is_char_device():
        raise UserError(f"{output}: a video cannot go into a pipe: its beginning is written last; name a file")


def _check_suffix(output: Path, frames: bool) -> None:
    if output.is_dir():
        return
    suffix = output.suffix.lower()
    if frames and suffix in VIDEO_SUFFIXES:
        raise UserError(f"{output}: --frames writes a folder of images; name a folder")
    if suffix not in WRITTEN and re.fullmatch(r"\.[a-z]\w*", suffix):
        known = ", ".join(sorted(WRITTEN))
        raise UserError(
            f"{output}: {suffix} cannot be written, only {known}; to use this name for a folder, create it first"
        )


def _unique_outputs(videos: list[Path], source: Path, output: Path, frames: bool, codec: str) -> list[Path]:
    """One path for each video. Where two would be equal (a.avi and a.mkv), the input's suffix becomes part of it."""
    names = [video.stem if frames else _video_name(video, codec) for video in videos]
    paths = [output / video.relative_to(source).parent / name for video, name in zip(videos, names, strict=True)]
    times = Counter(paths)
    return [
        path.with_name(video.name + ("" if frames else path.suffix))
        if times[path] > 1 and video.name != path.name
        else path
        for video, path in zip(videos, paths, strict=True)
    ]


def _video_name(source: Path, codec: str) -> str:
    """File name of an output video in a folder. Matroska takes any stream; MP4 only some."""
    suffix = source.suffix.lower() if source.is_file() else ".mp4"
    return source.stem + (suffix if codec != "ffv1" and suffix in (".mp4", ".mov", ".m4v") else ".mkv")
