"""The state of the clips of a test set: a clip whose files changed is scored again."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from keep.evaluation.report.origin import file_hash
from keep.evaluation.report.records import key_of
from keep.utils.errors import UserError
from keep.utils.progress import progress_bar


def clips_of(dataset: Any, seed: int, by_content: bool = False, num: int | None = None) -> list[tuple[str, str]]:
    """(name, state) of each clip of a test set; the state changes when the clip does.

    The state is a hash of name, size and time of change of every file of the clip. A dataset that does not list its
    files (a plugin without ``files``) is read, and the frames are hashed.

    Args:
        dataset: see :mod:`keep.data.base`.
        seed: of the degradations, for a dataset that is read.
        by_content: hash the contents of the files instead of their sizes and times.
        num: only the first so many clips; None: all.
    """
    clips = getattr(dataset, "clips", None)
    numbers = range(len(dataset) if num is None else min(num, len(dataset)))
    found = []
    for number in progress_bar(
        numbers, desc="comparing clips with earlier results", unit=" clips", delay=2, leave=False
    ):
        files = dataset.files(clips[number]) if clips is not None and hasattr(dataset, "files") else None
        state = frames_state(dataset, seed, number) if files is None else files_state(files, by_content)
        found.append((f"{number:05d}" if clips is None else clips[number].name, state))
    return found


def files_state(files: Iterable[Path], by_content: bool) -> str:
    """A hash of the names and sizes of files, with their times of change in nanoseconds or their contents."""
    facts: list[Any] = []
    for path in files:
        try:
            stat = path.stat()
            time = stat.st_mtime_ns
            facts.append([path.name, stat.st_size, file_hash(path, stat.st_size, time) if by_content else time])
        except OSError as error:  # reading the clip will report it
            facts.append([path.name, type(error).__name__])
    return key_of(facts)


def frames_state(dataset: Any, seed: int, number: int) -> str:
    """A hash of the frames of a clip, true and low-quality."""
    digest = hashlib.sha256()
    try:
        sample = dataset[seed, number]
        for kind in ("gt", "lq"):
            if kind in sample:
                digest.update(f"{kind} {tuple(sample[kind].shape)} ".encode())
                digest.update(sample[kind].contiguous().numpy().tobytes())
    except (OSError, UserError) as error:  # reading the clip will report it
        return type(error).__name__
    return digest.hexdigest()
