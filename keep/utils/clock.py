"""Where the time and the memory of a run went."""

import resource
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")


class Clock:
    """Adds up seconds by part. Attributes: ``seconds``, part → seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start

    def each(self, part: str, items: Iterable[T]) -> Iterator[T]:
        """``items``, with the time that each takes to come counted as ``part``."""
        source = iter(items)
        while True:
            with self(part):
                try:
                    item = next(source)
                except StopIteration:
                    return
            yield item


def peak_memory() -> tuple[float, float]:
    """The largest memory of this process so far, and on its GPU (0 without one), in MiB."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    return host, torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_initialized() else 0.0
