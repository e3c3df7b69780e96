"""Batches brought to the device ahead of their step."""

import queue
import threading
from collections.abc import Generator, Iterable
from typing import Any

import torch

from keep.data.frames import to_float

AHEAD = 2
"""Batches that wait on the GPU."""


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on the device; uint8 frames become float in [-1, 1] there."""
    moved = {k: v.to(device, non_blocking=True) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    return {
        k: to_float(v) if isinstance(v, torch.Tensor) and v.dtype == torch.uint8 else v for k, v in moved.items()
    }  # fmt: skip


def on_device(
    loader: Iterable[dict[str, Any]], device: torch.device, ahead: bool
) -> Generator[dict[str, Any], None, None]:
    """The loader's batches on the device.

    Args:
        loader: gives batches in (pinned) CPU memory.
        device: where they go.
        ahead: on CUDA, copy and convert the next batches on a stream of their own while a step computes.
    """
    if ahead and device.type == "cuda":
        yield from _side_stream(loader, device)
    else:
        for batch in loader:
            yield to_device(batch, device)


def _side_stream(loader: Iterable[dict[str, Any]], device: torch.device) -> Generator[dict[str, Any], None, None]:
    stream = torch.cuda.Stream(device)
    ready: queue.Queue[Any] = queue.Queue(AHEAD)
    left = threading.Event()

    def fetch() -> None:
        try:
            torch.cuda.set_device(device)
            for batch in loader:
                with torch.cuda.stream(stream):
                    moved = to_device(batch, device)
                    done = torch.cuda.Event()
                    done.record(stream)
                if not _put(ready, (moved, done), left):
                    return
            _put(ready, None, left)
        except BaseException as error:
            _put(ready, error, left)

    thread = threading.Thread(target=fetch, name="prefetch", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            batch, done = item
            current = torch.cuda.current_stream(device)
            current.wait_event(done)
            for value in batch.values():
                if isinstance(value, torch.Tensor):
                    value.record_stream(current)  # its memory must not be given to the next batch while in use
            yield batch
    finally:
        left.set()
        thread.join(timeout=10)


def _put(ready: "queue.Queue[Any]", item: Any, left: threading.Event) -> bool:
    """Wait for a free place; False when nobody will take it any more."""
    while not left.is_set():
        try:
            ready.put(item, timeout=0.5)
            return True
        except queue.Full:
            continue
    return False
