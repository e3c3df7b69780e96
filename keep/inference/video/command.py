"""The body of ``keep-restore``: one video, or a folder of them, alone or shared between ranks."""

import argparse
import sys
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from keep.inference.video.engines import ENGINES, ProgressBar
from keep.inference.video.job import restore_video
from keep.inference.video.options import build_tools, settings_of
from keep.inference.video.outputs import list_jobs, other_files, refuse_existing, refuse_overwriting, share
from keep.inference.video.settings import Settings
from keep.utils.io import write_file
from keep.utils.launch import launched_ranks
from keep.utils.logging import log

BAD_INPUT, BROKEN = 2, 3  # exit statuses; BROKEN: restored, but frames of the input were lost


def restore(args: argparse.Namespace) -> int:
    """Restore what the command line names; the exit status.

    Raises:
        UserError: the options do not fit together, or the only video failed.
    """
    rank, world, _ = launched_ranks()
    source = Path(args.input)
    jobs = list_jobs(source, Path(args.output), args.frames, args.codec)
    settings = settings_of(args)
    refuse_overwriting(jobs, settings)
    if rank == 0 and (others := other_files(source)):
        names = ", ".join(str(file.relative_to(source)) for file in others[:10])
        more = f" and {len(others) - 10} more" if len(others) > 10 else ""
        log.info(f"skipped, not videos: {names}{more}")
    if [video for video, _ in jobs] == [source]:
        if not args.overwrite:
            refuse_existing(jobs[0][1], settings)
        return restore_single(*jobs[0], args, settings) if rank == 0 else 0
    # Shared out before finished videos are skipped: ranks that start at different times must agree.
    mine = share(jobs, rank, world)
    pending = [job for job in mine if args.overwrite or not job[1].exists()]
    if finished := len(mine) - len(pending):
        log.info(f"{finished} of {len(mine)} videos exist already (--overwrite restores them again)")
    if world == 1:
        return restore_folder(pending, args, settings)[0]
    # A launcher ends all ranks when one of them fails. So failed videos are listed in a file, and the rank succeeds.
    remove_failure_lists(Path(args.output), rank, world)
    problems = restore_folder(pending, args, settings)[1]
    if problems:
        file = write_failure_list(Path(args.output), rank, problems)
        log.warning(f"rank {rank}: {len(problems)} of {len(pending)} videos failed or were broken, see {file}")
    return 0


def restore_single(video: Path, output: Path, args: argparse.Namespace, settings: Settings) -> int:
    """Restore one video; the exit status."""
    if args.engine == "ray":
        return restore_folder([(video, output)], args, settings)[0]
    with ProgressBar(video.name) as bar:
        summary = restore_video(video, output, build_tools(args), settings, bar)
    log.info("\n".join(summary.lines()))
    return BROKEN if summary.broken else 0


def restore_folder(
    jobs: list[tuple[Path, Path]], args: argparse.Namespace, settings: Settings
) -> tuple[int, list[str]]:
    """Restore several videos. One that fails is reported, and the next one is restored.

    Returns:
        the exit status, and a line for each video that failed or was broken.
    """
    if not jobs:
        return 0, []
    status, problems = 0, []
    with closing(ENGINES[args.engine](jobs, args, settings)) as restored:
        for video, result in restored:
            if isinstance(result, str):
                tqdm.write(f"error: {result}", file=sys.stderr)
                problems.append(f"{video}: failed: {result}")
                status = BAD_INPUT
                continue
            log.info("\n".join(result.lines()))
            if result.broken:
                problems.append(f"{video}: restored, but {result.notes[-1]}")
                status = status or BROKEN
    return status, problems


def failure_list(folder: Path, rank: int) -> Path:
    """The file that lists the videos of one rank that failed or were broken."""
    return folder / f"failed.rank{rank}.txt"


def remove_failure_lists(folder: Path, rank: int, world: int) -> None:
    """Remove this rank's list of an earlier run. Rank 0 also removes those of ranks that no longer exist."""
    current = {failure_list(folder, r) for r in range(world)}
    outdated = [file for file in folder.glob("failed.rank*.txt") if file not in current] if rank == 0 else []
    for file in (failure_list(folder, rank), *outdated):
        file.unlink(missing_ok=True)


def write_failure_list(folder: Path, rank: int, lines: list[str]) -> Path:
    """Write the lines to this rank's list."""
    file = failure_list(folder, rank)
    write_file(file, "".join(f"{line}\n" for line in lines))
    return file
