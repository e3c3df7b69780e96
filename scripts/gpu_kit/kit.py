"""The loop of the GPU kit: run the jobs one after another within the budget, and publish what they write."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from keep.utils.io import remove_hidden_files
from keep.utils.signals import StopRequest
from scripts.gpu_kit.jobs import GRACE, Job, Outcome, run_job
from scripts.gpu_kit.results import Results
from scripts.gpu_kit.weights import Weights

ROOT = Path(__file__).resolve().parents[2]
MARGIN = 15.0
"""Seconds before the end of the budget at which the kit has ended."""
LEAST = 1.0
"""A job is skipped when fewer seconds are left."""
PUBLISH = 2.0
"""Seconds between two looks for new results while a job runs."""


class Kit:
    """A run of the kit.

    Args:
        jobs: in order of value.
        out: the results folder.
        work: folder of the jobs' folders.
        budget: seconds from ``start`` that all of it may take.
        margin: seconds before that at which the kit ends.
        grace: seconds that a stopped job has to save.
        every: seconds between two copies of the weights.
        most: most bytes of weights.
        start: ``time.monotonic()`` at the start of the budget; default now.
        head: what the run is, for the summary.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        out: Path,
        work: Path,
        budget: float,
        *,
        margin: float = MARGIN,
        grace: float = GRACE,
        every: float = 60.0,
        most: int = 60_000_000,
        start: float | None = None,
        head: dict[str, Any] | None = None,
    ) -> None:
        self.jobs, self.work, self.grace, self.every = list(jobs), work, grace, every
        self.start = time.monotonic() if start is None else start
        self.end = self.start + budget - margin - grace  # the last job gets SIGTERM here
        out.mkdir(parents=True, exist_ok=True)
        remove_hidden_files(out)
        self.results = Results(out, work, {"budget, s": budget, **(head or {})})
        self.results.outcomes = [Outcome(job.name, job.what) for job in self.jobs]
        self.weights = Weights(out, most, since=time.time() - 1)  # file systems round times
        self._next = {"results": 0.0, "weights": 0.0}

    def run(self) -> bool:
        """Run all jobs; whether all of them succeeded."""
        with StopRequest() as request:
            self.publish(weights=False)
            for i, (job, outcome) in enumerate(zip(self.jobs, self.results.outcomes, strict=True)):
                outcome.limit = self.limit(i)
                if request or outcome.limit < LEAST:
                    outcome.status = "skipped"
                    continue
                self.run_one(job, outcome, request)
        self.results.head["ended after, s"] = round(time.monotonic() - self.start, 1)
        self.publish(weights=True)
        return all(o.status == "done" for o in self.results.outcomes)

    def run_one(self, job: Job, outcome: Outcome, request: StopRequest) -> None:
        """Run a job, publish its results while it runs and afterwards."""
        outcome.status = "running"
        self.say(f"{job.name}, at most {outcome.limit:.0f} s")
        self.publish(weights=False)
        if job.run is not None:
            self.results.runs[job.run.name] = job.run
            self._next["weights"] = time.monotonic() + self.every
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
        outcome.status, outcome.seconds = run_job(
            job, self.work / job.name, outcome.limit, environment, self.ticker(request), self.grace
        )
        self.say(f"{job.name}: {outcome.status} after {outcome.seconds:.1f} s")
        self.publish(weights=job.run is not None)

    def limit(self, i: int) -> float:
        """Seconds that job ``i`` may take, started now."""
        job, left = self.jobs[i], self.end - time.monotonic()
        if job.seconds is not None:
            return min(job.seconds, left)
        shares = [j.share for j in self.jobs[i:] if j.seconds is None]
        return left * job.share / sum(shares)

    def ticker(self, request: StopRequest) -> Callable[[], bool]:
        """What to do while a job runs: publish what is due; returns whether to stop."""

        def tick() -> bool:
            now = time.monotonic()
            due = {name: now >= then for name, then in self._next.items()}
            if due["results"] or due["weights"]:
                self.publish(weights=due["weights"])
            return bool(request)

        return tick

    def publish(self, weights: bool) -> None:
        """Write what is new. A full disk, or a file that is written at this moment, must not end the kit."""
        now = time.monotonic()
        self._next["results"] = now + PUBLISH
        try:
            if weights:
                self._next["weights"] = now + self.every
                self.results.weights = self.weights.update(self.results.runs)
            self.results.update()
        except OSError as error:
            self.say(f"could not write the results: {error}")

    def say(self, line: str) -> None:
        print(f"[{time.monotonic() - self.start:4.0f} s] {line}", file=sys.stderr, flush=True)
