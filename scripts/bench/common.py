"""What the benchmarks share: a clock that waits for the device, memory, the machine's name, a synthetic clip."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from keep.degradation.resize import upsample

SEED = 0
GIB = 2**30


class Clock:
    """Adds up seconds by name: on CUDA between events in the queue of work, which does not wait for the device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._seconds: dict[str, float] = {}
        self._started: dict[str, Any] = {}
        self._pending: list[tuple[str, float, Any, Any]] = []

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by name; waits until all measured work is done."""
        for name, share, start, end in self._pending:
            if self.device.type == "cuda":
                end.synchronize()
                spent = start.elapsed_time(end) / 1000
            else:
                spent = end - start
            self._seconds[name] = self._seconds.get(name, 0.0) + share * spent
        self._pending.clear()
        return self._seconds

    def now(self) -> Any:
        """A moment: an event in the queue of the device, or the time."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    @contextmanager
    def part(self, name: str, share: float = 1.0) -> Iterator[None]:
        """Add ``share`` of the block's time to ``name``."""
        start = self.now()
        yield
        self._pending.append((name, share, start, self.now()))

    @contextmanager
    def watch(self, modules: dict[str, list[nn.Module]]) -> Iterator[None]:
        """Add the time of every forward pass of these modules to their names."""

        def before(name: str, *_: Any) -> None:
            self._started[name] = self.now()

        def after(name: str, *_: Any) -> None:
            self._pending.append((name, 1.0, self._started[name], self.now()))

        hooks = []
        for name, group in modules.items():
            for module in group:
                hooks.append(module.register_forward_pre_hook(partial(before, name)))
                hooks.append(module.register_forward_hook(partial(after, name)))
        yield
        for hook in hooks:
            hook.remove()


def say(line: str) -> None:
    """Report progress on stderr: stdout holds the tables alone."""
    print(line, file=sys.stderr, flush=True)


def moving_clip(batch: int, frames: int, size: int) -> Tensor:
    """(B, T, 3, S, S) in [-1, 1]: a smooth texture that moves by one LQ pixel a frame, upsampled ×4."""
    small = size // 4
    generator = torch.Generator().manual_seed(SEED)
    coarse = torch.randn(batch, 3, max(small // 8, 2), max(small // 8, 2), generator=generator)
    texture = F.interpolate(coarse, size=(small, small), mode="bicubic").tanh()
    return upsample(torch.stack([texture.roll(t, -1) for t in range(frames)], dim=1), 4)


def start_of_memory(device: torch.device) -> float:
    """Reset the record of the peak memory; returns the bytes in use now (NaN where they cannot be measured)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the kernel's high-water mark (Linux)
    except OSError:
        return float("nan")
    return _process_memory("VmRSS")


def peak_of_memory(device: torch.device) -> float:
    """The highest number of bytes in use since :func:`start_of_memory`."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _process_memory("VmHWM")


def _process_memory(key: str) -> float:
    """A size in bytes from /proc/self/status; NaN where that file does not exist."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith(key)), float("nan"))


def machine(device: torch.device) -> str:
    """Model of the GPU, or of the CPU with its cores and instruction set."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "CPU")
    return f"{name}, {torch.get_num_threads()} of {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
