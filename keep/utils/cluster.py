"""Jobs on the workers of Ray: each worker is a process that does one job after another.

A job is given to the next free worker, so unequal jobs balance. Ray itself could restart a dead worker and repeat its
job, but the job would wait until Ray has a place for this worker. Here any free worker repeats it, and a new worker
joins once Ray has placed it.
"""

import contextlib
import importlib.util
import logging
import math
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keep.utils.errors import UserError, first_line, reported
from keep.utils.logging import log
from keep.utils.network import check_reachable
from keep.utils.signals import interrupted_by
from keep.utils.starting import ENDING

RETRIES = 2
"""How often a job is repeated whose worker died."""
GRACE = 60.0
"""Seconds that jobs which ask :func:`check_cancelled` have to clean up after a stop."""
STORE = 100 << 20
"""Bytes of shared memory of a Ray that this process starts. Only paths and summaries go through it."""

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed",  # said here, in one line
}
"""Variables that Ray reads when it is imported."""


class Cancelled(Exception):  # noqa: N818, not an error
    """The run is being stopped: a job ends early and removes what it has not finished."""


@dataclass(frozen=True)
class Share:
    """What one worker takes of its machine.

    Attributes:
        cpus: CPU cores.
        gpus: GPUs; a fraction shares one between workers.
    """

    cpus: int = 1
    gpus: float = 0.0

    def device(self, name: str) -> str:
        """The device of a worker for ``auto``, ``cpu`` or ``cuda``. Ray hides GPUs only from workers that have one."""
        return ("cuda" if self.gpus else "cpu") if name == "auto" else name


@dataclass(frozen=True)
class Died:
    """The result of a job whose worker died again and again.

    Attributes:
        reason: one line.
    """

    reason: str


@dataclass
class Worker:
    """Runs in a process of Ray. What jobs share, such as networks, is built by the first job: a process that dies while
    it builds counts as a death in this job.

    Attributes:
        folder: current folder of the run: relative paths mean the same files here.
        environment: variables to set.
        make: builds what does the jobs.
    """

    folder: str
    environment: Mapping[str, str]
    make: Callable[[], Callable[[Any], Any]]
    work: Callable[[Any], Any] | None = None

    def start(self) -> None:
        """Done as soon as the process exists."""

    def run(self, job: Any) -> tuple[Any, list[Any], list[Any]]:
        """The job's result, and the log of building and of the job."""
        built, said = Collected(), Collected()
        if self.work is None:
            self._enter()
            with built:
                self.work = self.make()
        with said:
            return self.work(job), built.records, said.records

    def _enter(self) -> None:
        os.environ.update(self.environment)
        try:
            os.chdir(self.folder)
        except OSError as error:
            machine = os.uname().nodename
            raise UserError(
                f"{self.folder}: {error.strerror} on {machine}; the machines of the cluster must share this folder"
            ) from None


class Collected(logging.Handler):
    """Inside, messages of the ``keep`` logger are kept, as (level, message)."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append((record.levelno, record.getMessage()))

    def __enter__(self) -> "Collected":
        log.setLevel(logging.INFO)
        log.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        log.removeHandler(self)


def check_cancelled() -> None:
    """For a job, as often as possible: raise :class:`Cancelled` if the run is being stopped."""
    import ray

    if ray.get_runtime_context().is_canceled():
        raise Cancelled


def check_shared(path: Path) -> None:
    """Raise UserError if this machine does not see what a worker wrote.

    The folder is listed: a file server is asked for that, while ``exists`` may give an answer of before.
    """
    if not path.exists() and path.name not in {file.name for file in path.parent.iterdir()}:
        raise UserError(f"{path}: was written on another machine: the machines of the cluster must share this folder")


def check_installed() -> None:
    """Raise UserError if Ray is missing. Does not import it."""
    if importlib.util.find_spec("ray") is None:
        raise UserError('--engine ray needs the package ray: pip install "keep-vfsr[ray]"')


def start(**options: Any) -> None:
    """Connect to the cluster of ``$RAY_ADDRESS``, or start a Ray on this machine.

    Args:
        options: more options of ``ray.init``.

    Raises:
        UserError: in one line, why that fails.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    address = os.environ.get("RAY_ADDRESS") or "local"
    check_reachable(address, "the Ray of $RAY_ADDRESS")
    if address == "local":
        options = {"include_dashboard": False, "object_store_memory": STORE, **options}
    with reported(f"Ray ({address}) does not start"):
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Inside, this process is connected to Ray; a connection that exists already is used, and stays."""
    before = sys.modules.get("ray")
    own = before is None or not before.is_initialized()
    if own:
        start()
    try:
        with interrupted_by(ENDING):  # Ray has put its own handler of SIGTERM in place
            yield
    finally:
        if own:
            import ray

            ray.shutdown()


def share_of(cpus: int | None, gpus: float | None, device: str) -> Share:
    """The share that the command line asks for; by default one core, and one GPU where the cluster has GPUs.

    Args:
        cpus: ``--ray-cpus``.
        gpus: ``--ray-gpus``.
        device: ``auto``, ``cpu`` or ``cuda``.
    """
    import ray

    if gpus is None:
        gpus = 1.0 if device == "cuda" or (device == "auto" and ray.cluster_resources().get("GPU", 0) > 0) else 0.0
    return Share(cpus or 1, gpus)


def places(share: Share) -> int:
    """How many workers with this share the machines of the cluster hold."""
    import ray

    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(_places(machine.get("CPU", 0), machine.get("GPU", 0), share) for machine in machines)


def _places(cpus: float, gpus: float, share: Share) -> int:
    places = math.floor(cpus / share.cpus)
    if share.gpus == 0:
        return places
    on_gpus = math.floor(gpus) * math.floor(1 / share.gpus) if share.gpus <= 1 else math.floor(gpus / share.gpus)
    return min(places, on_gpus)


def spread(
    make: Callable[[], Callable[[Any], Any]],
    jobs: Sequence[Any],
    share: Share,
    environment: Mapping[str, str] | None = None,
    grace: float = GRACE,
) -> Generator[tuple[int, Any], None, None]:
    """Do the jobs on workers of Ray, inside :func:`connected`.

    Args:
        make: builds, in each worker, what does the jobs; it and the jobs are pickled.
        jobs: those to start first come first.
        share: of each worker.
        environment: variables of the workers.
        grace: seconds that running jobs have to end after a stop; then their processes are killed.

    Yields:
        (number of the job, its result, or :class:`Died`), in the order in which they end.

    Raises:
        UserError: there is no place for a worker, or it cannot be started.
        Exception: what ``make`` or a job raised; the other jobs are stopped.
    """
    count = min(places(share), len(jobs))
    if jobs and not count:
        gpus = f" and {share.gpus:g} GPUs" if share.gpus else ""
        raise UserError(f"no machine of the Ray cluster has {share.cpus} CPUs{gpus}: reduce --ray-cpus or --ray-gpus")
    pool = Pool(make, share, environment or {}, len(jobs))
    try:
        for _ in range(count):
            pool.add()
        while pool.unfinished:
            yield from pool.next(jobs)
    finally:
        pool.stop(grace)


class Pool:
    """The workers of one call of :func:`spread`.

    Args:
        jobs: how many.
    """

    def __init__(
        self, make: Callable[[], Callable[[Any], Any]], share: Share, environment: Mapping[str, str], jobs: int
    ) -> None:
        import ray

        kind = ray.remote(Worker).options(num_cpus=share.cpus, num_gpus=share.gpus)
        self._new = lambda: kind.remote(str(Path.cwd()), environment, make)
        self._waiting: dict[Any, tuple[Any, int | None]] = {}  # reference → worker, job; no job: it starts
        self._queue = deque(range(jobs))
        self._deaths: Counter[int | None] = Counter()
        self._said: set[str] = set()

    @property
    def unfinished(self) -> bool:
        """Whether a job waits or runs."""
        return bool(self._queue) or any(job is not None for _, job in self._waiting.values())

    def add(self) -> None:
        """Ask Ray for one more worker; it gets jobs once its process exists."""
        worker = self._new()
        self._waiting[worker.start.remote()] = worker, None

    def next(self, jobs: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Wait for one worker; what it finished, if it did, then its next job."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        (reference,), _ = ray.wait(list(self._waiting), num_returns=1)
        worker, job = self._waiting[reference]
        try:
            answer = ray.get(reference)
        except RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None
            raise
        except RayError as error:
            del self._waiting[reference]
            yield from self._died(job, first_line(error))
            return
        del self._waiting[reference]
        if self._queue:
            following = self._queue.popleft()
            self._waiting[worker.run.remote(jobs[following])] = worker, following
        else:
            ray.kill(worker)
        if job is not None:
            yield job, self._result(*answer)

    def _result(self, result: Any, built: list[tuple[int, str]], said: list[tuple[int, str]]) -> Any:
        """Log what the worker said; what all say while they build, once."""
        for level, line in built:
            if line not in self._said:
                log.log(level, line)
                self._said.add(line)
        for level, line in said:
            log.log(level, line)
        return result

    def _died(self, job: int | None, reason: str) -> Iterator[tuple[int, Died]]:
        """Another worker repeats the job."""
        self._deaths[job] += 1
        again = self._deaths[job] <= RETRIES
        if job is None and not again:
            raise UserError(f"Ray cannot start workers: {reason}")
        if job is not None and again:
            log.warning(f"warning: a worker died; its job is repeated ({self._deaths[job]} of {RETRIES})")
            self._queue.appendleft(job)
        if self._queue:
            self.add()
        if job is not None and not again:
            yield job, Died(f"its worker died {self._deaths[job]} times, most often because memory ran out")

    def stop(self, grace: float) -> None:
        """Stop jobs that still run, after they have removed what they have not finished; end all workers."""
        import ray

        running = [reference for reference, (_, job) in self._waiting.items() if job is not None]
        for reference in running:
            ray.cancel(reference)
        if running:
            ray.wait(running, num_returns=len(running), timeout=grace)
        for worker, _ in self._waiting.values():
            ray.kill(worker)
        self._waiting = {}
