"""Time and peak memory of the parts of a run."""

import resource
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")


class Clock:
    """Adds up seconds by part, and measures peak memory where asked.

    Args:
        device: a GPU is synchronized at the end of each part, so that its work is counted there; None never
            synchronizes.

    Attributes:
        seconds: part → seconds.
        memory: part → peak bytes: allocated by PyTorch on a GPU, otherwise the resident memory of the process.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cpu")
        self.seconds: dict[str, float] = {}
        self.memory: dict[str, int] = {}

    @contextmanager
    def __call__(self, part: str, memory: bool = False) -> Iterator[None]:
        """Time the block, also when it raises.

        Args:
            memory: measure its peak memory as well.
        """
        if memory:
            _reset_peak(self.device)
        start = time.perf_counter()
        try:
            yield
        finally:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start
            if memory:
                self.memory[part] = _peak(self.device)

    def each(self, part: str, items: Iterable[T]) -> Iterator[T]:
        """Yield ``items``; the time to produce each one counts as ``part``."""
        source = iter(items)
        while True:
            with self(part):
                try:
                    item = next(source)
                except StopIteration:
                    return
            yield item


def peak_memory() -> tuple[float, float]:
    """Peak memory of this process, and of PyTorch on its GPU (0 without one), in MiB."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    return host, torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_initialized() else 0.0


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak restarts at the present resident memory


def _peak(device: torch.device) -> int:
    """Bytes; 0 where the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
    except (OSError, StopIteration):
        return 0
