"""Stateless sampling: the samples of a batch are a function of its number, so a resume restores one integer."""

import atexit
import sys
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from keep.data.workers import watched_workers
from keep.utils import signals
from keep.utils.errors import UserError


class PositionSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (seed, position), the keys of a clip dataset.

    Batch n (from 0) of rank r holds the positions n·world·batch + r·batch + k, k = 0 … batch − 1: over all ranks, each
    position of the run once.

    Args:
        seed: of the run.
        batch_size: samples per batch and rank.
        stop: number of the batch to stop before.
        start: number of the first batch; on resume, the number of batches that each rank has processed.
        rank: of this process.
        world: number of processes.
    """

    def __init__(self, seed: int, batch_size: int, *, stop: int, start: int = 0, rank: int = 0, world: int = 1) -> None:
        if batch_size < 1 or not 0 <= rank < world:
            raise UserError(
                f"sampler: batch_size {batch_size}, rank {rank} of {world}: need batch_size >= 1, rank < world"
            )
        self.seed, self.batch_size, self.start, self.stop = seed, batch_size, start, stop
        self.rank, self.world = rank, world

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in range(self.start, self.stop):
            first = (batch * self.world + self.rank) * self.batch_size
            yield [(self.seed, first + k) for k in range(self.batch_size)]

    def __len__(self) -> int:
        return max(0, self.stop - self.start)


class ClipLoader(DataLoader[Any]):
    """A DataLoader that raises UserError in one line: a worker's own, or for a worker that was killed."""

    def __iter__(self) -> Generator[Any, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        with signals.blocked():  # a signal would kill a worker that is still starting
            batches = super().__iter__()
        # Workers ignore signals, so only this ends them: multiprocessing would wait for them at exit.
        stop = getattr(batches, "_shutdown_workers", lambda: None)
        atexit.register(stop)
        try:
            with watched_workers(getattr(batches, "_workers", ())):
                yield from batches
        except UserError as error:
            # torch adds the worker's traceback to the message; the last line is the error itself.
            line = str(error).strip().splitlines()[-1]
            raise UserError(line.removeprefix("keep.utils.errors.UserError: ")) from None
        finally:
            stop()
            atexit.unregister(stop)


def make_loader(
    dataset: Dataset[Any],
    seed: int,
    batch_size: int,
    *,
    stop: int,
    start: int = 0,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
) -> ClipLoader:
    """The training loader: batches ``start`` to ``stop`` − 1 of one rank, each a dict.

    Tensors are stacked to (B, T, 3, H, W); ``name`` and ``degradation`` become lists of B strings. The batches do not
    depend on ``workers``. The other arguments are those of :class:`PositionSampler`.
    """
    sampler = PositionSampler(seed, batch_size, stop=stop, start=start, rank=rank, world=world)
    return ClipLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=2 if workers else None,
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,  # workers share the dataset
        worker_init_fn=_start_worker,
        generator=torch.Generator().manual_seed(seed),  # the loader must not draw from torch's global generator
    )


def clip_loader(dataset: Dataset[Any], seed: int, clips: Sequence[int], workers: int = 0) -> ClipLoader:
    """Loads ``dataset[seed, i]`` for each i in ``clips``, in this order, one sample at a time."""
    workers = min(workers, len(clips))
    return ClipLoader(
        dataset,
        batch_size=None,
        sampler=[(seed, i) for i in clips],  # pyright: ignore[reportArgumentType]
        num_workers=workers,
        prefetch_factor=1 if workers else None,  # a clip in full can be large
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        worker_init_fn=_start_worker,
        generator=torch.Generator().manual_seed(seed),
    )


def _start_worker(worker: int) -> None:
    """One thread per worker, as the workers are the parallelism; their parent stops them, so they ignore signals."""
    signals.ignore()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
