"""Who restores the videos of a folder: this process, one after another, or workers of Ray, several at a time."""

import argparse
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from keep.inference.fast import keep_freed_memory
from keep.inference.video.job import restore_video
from keep.inference.video.options import build_tools
from keep.inference.video.outputs import extras_of, share
from keep.inference.video.settings import Progress, Settings, Tools
from keep.inference.video.summary import Summary
from keep.utils import cluster
from keep.utils.errors import UserError
from keep.utils.io import remove_leftovers
from keep.utils.logging import log
from keep.utils.progress import progress_bar

BURST = 8  # frames between updates of the progress bar
Job = tuple[Path, Path]
"""Input and output."""
Result = Summary | str
"""Of one video: its summary, or in one line why it failed."""


def restore_here(
    jobs: list[Job], args: argparse.Namespace, settings: Settings
) -> Generator[tuple[Path, Result], None, None]:
    """Restore the videos in this process; yields each with its result, in the given order."""
    tools = build_tools(args)
    for number, job in enumerate(jobs, 1):
        with ProgressBar(f"{number}/{len(jobs)} {job[0].name}") as bar:
            result = attempt(job, tools, settings, bar)
        yield job[0], result


def restore_on_ray(
    jobs: list[Job], args: argparse.Namespace, settings: Settings
) -> Generator[tuple[Path, Result], None, None]:
    """Restore the videos on workers of Ray; yields each with its result, in the order in which they end.

    The largest files start first: a long video that starts last would run alone in the end. A video is not cut into
    pieces: an encoder looks across the cuts between shots, so pieces would not give the same file.
    """
    jobs = share(jobs, 0, 1)
    unfinished = set(jobs)
    with cluster.connected():
        part = cluster.share_of(args.ray_cpus, args.ray_gpus, args.device)
        own = {"threads": args.threads or part.cpus, "device": part.device(args.device)}
        args = argparse.Namespace(**{**vars(args), **own})
        try:
            with closing(cluster.spread(partial(ray_worker, args, settings), jobs, part)) as results:
                for number, result in progress_bar(results, desc="videos", total=len(jobs), unit=" videos", delay=2):
                    video, output = jobs[number]
                    if isinstance(result, cluster.Died):
                        result = f"{video}: {result.reason}"
                    else:
                        unfinished.remove((video, output))
                        if not isinstance(result, str):
                            cluster.check_shared(output)
                    yield video, result
        finally:
            for _, output in unfinished:  # of workers that were killed
                for path in (output, *extras_of(output, settings)):
                    remove_leftovers(path)


def ray_worker(args: argparse.Namespace, settings: Settings) -> Callable[[Job], Result]:
    """In a worker of Ray: what restores one video."""
    keep_freed_memory()
    return partial(attempt, tools=build_tools(args), settings=settings, progress=stop_if_cancelled)


def stop_if_cancelled(what: str, done: int, total: int | None, tracks: list[int]) -> None:
    """A progress callback that ends the video when the run is stopped."""
    cluster.check_cancelled()


def attempt(job: Job, tools: Tools, settings: Settings, progress: Progress) -> Result:
    """Restore one video."""
    try:
        return restore_video(*job, tools, settings, progress, lambda line: log.info(f"{job[0].name}: {line}"))
    except (UserError, OSError) as error:
        return str(error).replace("\n", " ")


ENGINES = {"local": restore_here, "ray": restore_on_ray}
"""``--engine`` → its function."""


class ProgressBar:
    """A progress bar for each pass: frames a second, time left, the active tracks."""

    def __init__(self, name: str) -> None:
        self.name, self._what, self._bar = name, "", None

    def __enter__(self) -> "ProgressBar":
        return self

    def __call__(self, what: str, done: int, total: int | None, tracks: list[int]) -> None:
        if what != self._what:
            self.close()
            # The average over the pass: frames come in bursts, a window of the network at a time.
            options = {"unit": " frames", "delay": 2, "smoothing": 0, "initial": done - 1}
            self._what, self._bar = what, progress_bar(total=total, desc=f"{self.name}: {what}", **options)
        assert self._bar is not None
        if tracks:
            self._bar.set_postfix_str("track " + ", ".join(map(str, tracks)), refresh=False)
        if done - self._bar.n >= BURST or done == total:
            self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def __exit__(self, *_: Any) -> None:
        self.close()
