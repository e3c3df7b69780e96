"""How the processes of a run find each other, check that they are started alike, and notice that one is lost."""

import json
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist

from keep.config.registry import dump
from keep.config.schema import TrainConfig
from keep.evaluation.report.origin import code, file_hashes
from keep.training.distributed import Ranks
from keep.training.peers import Peers
from keep.utils.errors import UserError, first_line
from keep.utils.launch import launched_ranks
from keep.utils.nested import flat
from keep.utils.signals import Stopped, StopRequest

T = TypeVar("T")

JOIN = 600.0
"""Seconds in which all processes of a run must have started."""

NEWS = 5.0
"""Seconds in which a process is told why an operation of all processes failed."""

OWN = ("device", "threads", "data.workers", "data.prefetch")
"""Options that may differ between the processes of a run."""


@contextmanager
def processes(config: TrainConfig, request: StopRequest, **arguments: Any) -> Iterator[Ranks]:
    """Join the other processes of the run, if a launcher started any; leave them at the end.

    GPU tensors go through NCCL, CPU tensors through Gloo.

    Args:
        config: the checked options, the same in all processes.
        request: ends the wait for the others.
        arguments: further ones that must be the same: name → value.

    Raises:
        Stopped: a signal arrived while this process waited for the others.
        UserError: the launcher's variables are incomplete or contradict each other or the device; the processes are
            started differently; another process was killed or ended with an error.
    """
    ranks = Ranks(*launched_ranks(complete=True))
    if ranks.world == 1:
        yield ranks
        return
    if os.environ.get("MASTER_PORT") == "0":
        raise UserError("MASTER_PORT is 0: the processes need a port to meet at (torchrun --standalone chooses one)")
    backend = pick_backend(config.device, ranks)
    try:
        store, peers = waited(lambda: join(ranks, started_with(config, arguments)), request)
    except (dist.DistError, ValueError) as error:
        reason = first_line(error)
        raise UserError(f"rank {ranks.rank} of {ranks.world} cannot join the others: {reason}") from None
    reason = "it was interrupted"
    try:
        dist.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.world)
        yield ranks
        dist.destroy_process_group()  # not in a `finally`: after an error others may still wait here
        reason = ""
    except Stopped:
        reason = ""
        raise
    except Exception as error:
        lost = peers.lost(NEWS) if isinstance(error, RuntimeError) else ""  # an operation of all processes failed
        reason = lost or (str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}")
        if lost:
            raise UserError(lost) from None
        raise
    finally:
        peers.leave(" ".join(reason.split()))


def join(ranks: Ranks, started: Mapping[str, str]) -> tuple[Any, Peers]:
    """The store of all processes and the connections to them, once they all have started, and alike."""
    store, _, _ = next(dist.rendezvous("env://", timeout=timedelta(seconds=JOIN)))
    check_alike(store, ranks, started)
    return store, Peers(store, ranks.rank, ranks.world, os.environ["MASTER_ADDR"], JOIN)


def waited(work: Callable[[], T], request: StopRequest) -> T:
    """The result of ``work``, in a thread: what waits in PyTorch cannot be interrupted by a signal."""
    done: queue.Queue[tuple[T | None, Exception | None]] = queue.Queue()

    def run() -> None:
        try:
            done.put((work(), None))
        except Exception as error:
            done.put((None, error))

    threading.Thread(target=run, daemon=True, name="join").start()
    while True:
        try:
            result, error = done.get(timeout=0.2)
        except queue.Empty:
            if request:
                raise Stopped(f"after {request.name}, while it waited for the other processes") from None
            continue
        if error is not None:
            raise error
        return cast(T, result)


def pick_backend(device: str, ranks: Ranks) -> str:
    """What carries the tensors, and the GPU of this process as the current one.

    Args:
        device: the option ``device``.
        ranks: this process among the others.
    """
    if not torch.cuda.is_available() or device == "cpu":
        return "gloo"
    if device not in ("auto", "cuda"):
        raise UserError(f"device: {device} names one GPU, but {ranks.world} processes share the run: use auto")
    if ranks.local >= torch.cuda.device_count():
        raise UserError(
            f"LOCAL_RANK is {ranks.local}, but this machine has {torch.cuda.device_count()} CUDA devices: "
            "start one process a GPU (torchrun --nproc-per-node)"
        )
    torch.cuda.set_device(ranks.local)
    return "cpu:gloo,cuda:nccl"


# --- started alike ----------------------------------------------------------------------------------------------


def started_with(config: TrainConfig, arguments: Mapping[str, Any]) -> dict[str, str]:
    """What all processes must have been started with: name → value."""
    values = {k: json.dumps(value) for k, value in flat(dump(config))}
    options = {k: v for k, v in values.items() if not any(k == name or k.startswith(f"{name}.") for name in OWN)}
    plugins = {f"the plugin {file}": digest for file, digest in file_hashes(config.plugins).items()}
    return {
        "the code of keep": code(),
        "the version of PyTorch": torch.__version__,
        **plugins,
        **{name: str(value) for name, value in arguments.items()},
        **options,
    }


def check_alike(store: Any, ranks: Ranks, mine: Mapping[str, str]) -> None:
    """Raise UserError in all processes if one was started with other options or code than the first.

    Without this, they would wait for each other for ever, or train with wrong gradients.
    """
    store.set(f"keep/start/{ranks.rank}", json.dumps(mine))
    first = json.loads(store.get("keep/start/0"))
    for rank in range(1, ranks.world):
        other = json.loads(store.get(f"keep/start/{rank}"))
        differing = next((k for k in {**first, **other} if first.get(k) != other.get(k)), None)
        if differing is not None:
            here, there = (shown(x.get(differing)) for x in (first, other))
            raise UserError(
                f"rank {rank} of {ranks.world} was started with other options than rank 0: {differing} is {there}, not "
                f"{here}. Start all processes with the same options and code"
            )


def shown(value: str | None) -> str:
    """A value in a message; digests are cut."""
    return "not given" if value is None else value if len(value) <= 60 else f"{value[:12]}…"
