"""Batches of each step, loaded and copied to the device before the step needs them."""

import queue
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch

from keep.data.frames import to_float
from keep.data.sampler import make_loader
from keep.models.base import Batch
from keep.training.run import Run

AHEAD = 2
"""Batches that wait on the GPU."""


def step_batches(run: Run, data: Any) -> Iterator[tuple[Sequence[Batch], float]]:
    """For each remaining step, its batches on the device, and the seconds it waited for them.

    The step averages the gradients over its batches.

    The position in the data follows from ``run.position`` alone.
    """
    options, size, count, steps = run.config.data, run.batch_size, run.batches, run.config.train.iters - run.step
    first = -(-run.position // (size * run.ranks.world))
    loader = make_loader(
        data, run.config.seed, size, workers=options.workers, rank=run.ranks.rank, world=run.ranks.world,
        start=first, stop=first + steps * count,
    )  # fmt: skip
    batches = on_device(loader, run.device, options.prefetch)
    for _ in range(steps):
        start = time.perf_counter()
        with run.profiler.part("data"):
            group = list(islice(batches, count))
        yield group, time.perf_counter() - start


def on_device(
    loader: Iterable[dict[str, Any]], device: torch.device, ahead: bool
) -> Generator[dict[str, Any], None, None]:
    """The loader's batches on the device.

    Args:
        loader: gives batches in (pinned) CPU memory.
        device: where the run computes.
        ahead: on CUDA, copy and convert the next batches on a second stream while a step computes.
    """
    if ahead and device.type == "cuda":
        yield from _on_side_stream(loader, device)
    else:
        for batch in loader:
            yield to_device(batch, device)


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on the device; uint8 frames become float in [-1, 1] there."""
    moved = {k: v.to(device, non_blocking=True) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    return {
        k: to_float(v) if isinstance(v, torch.Tensor) and v.dtype == torch.uint8 else v for k, v in moved.items()
    }  # fmt: skip


def _on_side_stream(loader: Iterable[dict[str, Any]], device: torch.device) -> Generator[dict[str, Any], None, None]:
    stream = torch.cuda.Stream(device)
    ready: queue.Queue[Any] = queue.Queue(AHEAD)
    stopped = threading.Event()

    def fetch() -> None:
        try:
            torch.cuda.set_device(device)
            for batch in loader:
                with torch.cuda.stream(stream):
                    moved = to_device(batch, device)
                    copied = torch.cuda.Event()
                    copied.record(stream)
                if not _put(ready, (moved, copied), stopped):
                    return
            _put(ready, None, stopped)
        except BaseException as error:
            _put(ready, error, stopped)

    thread = threading.Thread(target=fetch, name="prefetch", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            batch, copied = item
            current = torch.cuda.current_stream(device)
            current.wait_event(copied)
            for value in batch.values():
                if isinstance(value, torch.Tensor):
                    value.record_stream(current)  # its memory must not be reused while the step computes
            yield batch
    finally:
        stopped.set()
        thread.join(timeout=10)


def _put(ready: "queue.Queue[Any]", item: Any, stopped: threading.Event) -> bool:
    """Put the item into the queue when there is room; False if the reader has stopped."""
    while not stopped.is_set():
        try:
            ready.put(item, timeout=0.5)
            return True
        except queue.Full:
            continue
    return False
