"""Profile of training steps: a table of the time of their parts, and a trace of their operators."""

import statistics
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from keep.config.schema import ProfileOptions
from keep.utils.io import AtomicWrite, write_file
from keep.utils.logging import log

NOTHING = nullcontext()


class Profiler:
    """Times the parts of some steps, then traces a few more. After that, and without options, it costs nothing.

    It writes ``profile/steps.md`` (the table), ``operators.txt`` and ``trace.json.gz`` (for https://ui.perfetto.dev or
    chrome://tracing). While it times, the device finishes each part before the next begins: the times are exact, and
    a step is slightly slower.

    Args:
        options: which steps; None measures nothing.
        folder: the run's folder.
        device: of the run.
        enabled: False on all ranks but the first: nothing is measured.
    """

    def __init__(
        self, options: ProfileOptions | None, folder: Path, device: torch.device, enabled: bool = True
    ) -> None:
        self.options = options if enabled else None
        self.folder, self.device = folder / "profile", device
        self.rows: list[dict[str, float]] = []  # a step each: part → seconds, and "whole"
        self._parts: dict[str, float] = {}
        self._begun: float | None = None  # of the step, while steps are timed
        self._trace: Any = None
        self._done = 0
        if self.options is not None and self.options.start == 0:
            self._begun = self._now()

    def part(self, name: str) -> AbstractContextManager[Any]:
        """Time what runs inside as the step's part ``name``. Parts do not nest; a part may occur several times."""
        if self._begun is not None:
            return self._timed(name)
        if self._trace is not None:
            return torch.profiler.record_function(name)
        return NOTHING

    def step_done(self) -> None:
        """Call at the end of every step."""
        if self.options is None:
            return
        self._done += 1
        first, last = self.options.start, self.options.start + self.options.steps
        if self._trace is not None:
            self._trace.step()
            if self._done == last + 1 + self.options.trace_steps:
                self.close()
        elif self._begun is not None:
            self.rows.append({**self._parts, "whole": self._now() - self._begun})
        self._parts, self._begun = {}, None
        if first <= self._done < last:
            self._begun = self._now()
        elif self._done == last:
            self._write_table()
            self._start_trace()

    def close(self) -> None:
        """End the trace, also when the run stops during it."""
        self.options = None
        self._begun = None
        if self._trace is not None:
            trace, self._trace = self._trace, None
            trace.stop()

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = self._now()
        yield
        self._parts[name] = self._parts.get(name, 0.0) + self._now() - start

    def _write_table(self) -> None:
        text = table(self.rows)
        write_file(self.folder / "steps.md", text)
        log.info(f"profile of {len(self.rows)} steps:\n{text}")

    def _start_trace(self) -> None:
        assert self.options is not None
        if not self.options.trace_steps:
            self.close()
            return
        kinds = [torch.profiler.ProfilerActivity.CPU]
        if self.device.type == "cuda":
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
        # The first step warms up the tracer and is discarded.
        plan = torch.profiler.schedule(wait=0, warmup=1, active=self.options.trace_steps, repeat=1)
        self._trace = torch.profiler.profile(activities=kinds, schedule=plan, on_trace_ready=self._write_trace)
        self._trace.start()

    def _write_trace(self, trace: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with AtomicWrite(self.folder / "trace.json.gz") as temporary:
            trace.export_chrome_trace(str(temporary))
        order = f"self_{'cuda' if self.device.type == 'cuda' else 'cpu'}_time_total"
        write_file(self.folder / "operators.txt", trace.key_averages().table(sort_by=order, row_limit=40))
        log.info(f"wrote the trace {self.folder / 'trace.json.gz'}")


OFF = Profiler(None, Path(), torch.device("cpu"))
"""A profiler that measures nothing."""


def table(rows: list[dict[str, float]]) -> str:
    """Markdown table: seconds of each part over the steps, mean and median, and its share of the step.

    Args:
        rows: of each step, part → seconds, and ``whole``, the step. The rest, outside all parts, is ``other``.
    """
    names = list(dict.fromkeys(name for row in rows for name in row if name != "whole"))
    columns = {name: [row.get(name, 0.0) for row in rows] for name in names}
    columns["other"] = [row["whole"] - sum(v for k, v in row.items() if k != "whole") for row in rows]
    columns["whole step"] = [row["whole"] for row in rows]
    total = sum(columns["whole step"])
    lines = ["| part | mean, s | median, s | share |", "| :-- | --: | --: | --: |"]
    for name, seconds in columns.items():
        mean, median = statistics.fmean(seconds), statistics.median(seconds)
        lines.append(f"| {name} | {mean:.4f} | {median:.4f} | {sum(seconds) / total:.1%} |")
    return "\n".join(lines) + "\n"
