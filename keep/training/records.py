"""Records of a run: log file, ``log.jsonl``, and trackers such as TensorBoard."""

import contextlib
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from keep.training.trackers.base import Tracker
from keep.utils.errors import UserError, first_line
from keep.utils.io import write_file
from keep.utils.logging import log


class RunLog:
    """The records of a run: ``train.log`` and ``log.jsonl`` (one object a line) in its folder, and its trackers.

    A resumed run deletes the lines after ``last_step``, because it repeats those steps. A tracker that fails after its
    start is reported once and left out: it does not stop the run.

    Args:
        folder: the run's folder.
        last_step: step that the run resumes from; 0 for a new run.
        trackers: further places of the records. None on all ranks but the first: nothing is opened, and every method
            does nothing.
        options: the run's resolved options as YAML, for the trackers.

    Raises:
        UserError: a tracker cannot open its record of a new run. A resumed run goes on without it.
    """

    def __init__(
        self, folder: Path, last_step: int = 0, trackers: Sequence[Tracker] | None = (), options: str = ""
    ) -> None:
        self._enabled = trackers is not None
        if trackers is None:
            return
        self._trackers: list[Tracker] = []
        for tracker in trackers:
            try:
                tracker.open(folder, last_step, options)
                self._trackers.append(tracker)
            except Exception as error:  # of its package, its disk or its server
                if not last_step:
                    self._end_trackers(failed=True)
                    raise
                name = "" if isinstance(error, UserError) else f"{type(tracker).__name__}: "
                log.warning(f"warning: {name}{first_line(error)}; the run goes on without it")
        self._file = logging.FileHandler(folder / "train.log", encoding="utf-8")
        self._file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        log.addHandler(self._file)
        cut_records(folder / "log.jsonl", last_step)
        self._jsonl = (folder / "log.jsonl").open("a", encoding="utf-8")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write one record: name → number. Values that are not finite are null in ``log.jsonl``: JSON has no NaN."""
        if not self._enabled:
            return
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}
        try:
            self._jsonl.write(json.dumps({"step": step, **finite}) + "\n")
            self._jsonl.flush()
        except OSError as error:
            raise UserError(f"{self._jsonl.name}: cannot write: {error.strerror or error}") from None
        self._tell(lambda tracker: tracker.scalars(step, values))

    def clip(self, name: str, step: int, frames: np.ndarray, fps: float = 8.0) -> None:
        """Give the trackers a clip, uint8 (T, H, W, 3)."""
        if self._enabled:
            self._tell(lambda tracker: tracker.clip(name, step, frames, fps))

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(failed=kind is not None)

    def close(self, failed: bool = False) -> None:
        """End the records; ``failed``: the run ended before its last step."""
        if not self._enabled:
            return
        log.removeHandler(self._file)
        self._file.close()
        with contextlib.suppress(OSError):  # a full disk: the error of the run is the one to report
            self._jsonl.close()
        self._end_trackers(failed)

    def _tell(self, record: Callable[[Tracker], None]) -> None:
        """Give every tracker a record; one that fails gets no more."""
        for tracker in list(self._trackers):
            try:
                record(tracker)
            except Exception as error:  # of its package, its disk or its server
                self._trackers.remove(tracker)
                with contextlib.suppress(Exception):
                    tracker.close(failed=True)
                log.warning(
                    f"warning: {type(tracker).__name__}: {first_line(error)}; it gets no more records of this run"
                )

    def _end_trackers(self, failed: bool) -> None:
        for tracker in self._trackers:
            with contextlib.suppress(Exception):
                tracker.close(failed)


def cut_records(path: Path, step: int) -> None:
    """Delete the records after ``step`` from ``log.jsonl``, and a last line that a killed process did not finish."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            keep = json.loads(line)["step"] <= step
        except (ValueError, KeyError, TypeError):  # not JSON, or not a record
            continue
        if keep:
            kept.append(f"{line}\n")
    write_file(path, "".join(kept))
