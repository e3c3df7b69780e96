"""One writer at a time: a lock file beside an output names the process that writes it."""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from glob import escape
from pathlib import Path
from typing import Any

from keep.utils.errors import UserError
from keep.utils.logging import log

BEAT = 30.0
"""Seconds between two signs of life of an owner: the time of change of its lock file."""
SILENCE = 600.0
"""Seconds without a sign of life after which an owner on another machine counts as dead."""


@contextmanager
def lock(output: str | Path, part: str = "", group: str = "") -> Iterator[None]:
    """Hold ``output`` for this process, or raise UserError in one line that names the process that holds it.

    The lock is the file ``.NAME.lock`` beside the output, made in one step (``O_EXCL``), which NFS supports. A lock
    whose owner is dead is removed: on the same machine its process no longer exists (or its number belongs to a process
    that started at another time); on another machine it gave no sign of life for ten minutes.

    Args:
        output: the file or folder that this process writes. A missing parent folder is made, and removed at the end if
            it is empty.
        part: several processes share the output: the name of this process's own part, such as its rank. Parts have
            locks of their own.
        group: processes with parts may hold the output together if their groups are equal.

    Raises:
        UserError: another process holds the output, or the lock cannot be written.
    """
    output = Path(output)
    path = _lock_path(output, part)
    me = {"host": _host(), "pid": os.getpid(), "started": _start_time(os.getpid()), "group": group,
          "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}", "key": secrets.token_hex(8)}  # fmt: skip
    made = [folder for folder in path.parents if not folder.exists()]
    done = threading.Event()
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _create(path, output, me)
        except OSError as error:
            raise UserError(f"{path}: cannot write: {error.strerror or error}") from None
        _check_others(path, output, group)
        threading.Thread(target=_beat, args=(path, done), daemon=True, name="lock").start()
        yield
    finally:
        done.set()
        _release(path, me)
        with contextlib.suppress(OSError):  # it holds the output
            for folder in made:
                folder.rmdir()


def dead_parts(output: Path, since: float) -> dict[str, str]:
    """Parts of ``output`` whose owner lived after the time ``since`` and died with its lock → which process it was."""
    prefix = _lock_path(output, "").name + "-"
    owners = {path: _owner(path) for path in output.parent.glob(f"{escape(prefix)}*")}
    return {
        path.name.removeprefix(prefix): f"process {owner['pid']} on {owner['host'].split('/')[0]}"
        for path, owner in sorted(owners.items())
        if owner is not None and not _is_alive(path, owner) and path.stat().st_mtime > since
    }


def _lock_path(output: Path, part: str) -> Path:
    return output.with_name(f".{output.name}.lock{'-' if part else ''}{part}")


def _create(path: Path, output: Path, me: dict[str, Any]) -> None:
    """Make the lock file, in place of one whose owner is dead."""
    for _ in range(10):
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            owner = _owner(path)
            if owner is None:  # it was just released, or is being written
                time.sleep(0.05)
                continue
            if _is_alive(path, owner):
                raise UserError(_refusal(output, owner)) from None
            _remove_dead(path, owner)
            continue
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(me, file)
        return
    raise UserError(f"{path}: cannot be read; if no process writes {output}, delete it")


def _check_others(own: Path, output: Path, group: str) -> None:
    """Raise UserError if a part of the output is held by a live process of another group."""
    parts = output.parent.glob(f".{escape(output.name)}.lock-*")
    for path in [_lock_path(output, ""), *parts]:
        owner = None if path == own else _owner(path)
        if owner is not None and not (group and owner.get("group") == group) and _is_alive(path, owner):
            raise UserError(_refusal(output, owner))


def _refusal(output: Path, owner: dict[str, Any]) -> str:
    return (
        f"{output}: process {owner['pid']} on {owner['host'].split('/')[0]} writes it since {owner['since']}; wait for "
        "it, stop it, or choose another name"
    )


def _owner(path: Path) -> dict[str, Any] | None:
    """The content of a lock file; None if there is none, or no complete one."""
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return owner if isinstance(owner, dict) and {"host", "pid", "started", "since", "key"} <= owner.keys() else None


def _is_alive(path: Path, owner: dict[str, Any]) -> bool:
    if owner["host"] == _host():
        started = _start_time(owner["pid"])
        return started is not None and started == owner["started"]
    try:
        probe = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        probe.touch()  # its time is that of the file server, as the lock's
        now = probe.stat().st_mtime
        probe.unlink()
        return now - path.stat().st_mtime < SILENCE
    except OSError:
        return True


def _remove_dead(path: Path, owner: dict[str, Any]) -> None:
    """Remove the lock of a dead owner, unless another process has just replaced it."""
    taken = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with contextlib.suppress(OSError):
        path.rename(taken)  # of several processes that try, one succeeds
        found = _owner(taken)
        if found is not None and found["key"] != owner["key"]:
            with contextlib.suppress(FileExistsError):
                os.link(taken, path)  # it is another, live owner's: put it back
        else:
            log.warning(f"warning: process {owner['pid']} ended without removing {path}; removed it")
        taken.unlink()


def _release(path: Path, me: dict[str, Any]) -> None:
    owner = _owner(path)
    if owner is not None and owner["key"] == me["key"]:
        path.unlink(missing_ok=True)


def _beat(path: Path, done: threading.Event) -> None:
    while not done.wait(BEAT):
        with contextlib.suppress(OSError):
            os.utime(path)


def _host() -> str:
    """This machine, and the container in which process numbers count."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return f"{socket.gethostname()}/{space}"


def _start_time(pid: int) -> str | None:
    """When a process of this machine started, as an opaque text; None if there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]  # clock ticks since the machine started
    except OSError:
        pass
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except PermissionError:
        return ""
    except (OSError, OverflowError):
        return None
    return ""
