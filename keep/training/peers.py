"""Who of a run's processes ended, and why: without this, the others only know that a connection broke, or wait.

Every process is connected to the first one. The system closes the connections of a process that is killed, and one that
fails says why before it ends. The first process tells the others.
"""

import json
import os
import secrets
import selectors
import socket
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic
from typing import Any

from keep.utils.errors import UserError

PATIENCE = 60.0
"""Seconds that a process of a broken run may take to end by itself: it may wait on a GPU for a process that is lost."""

HELLO = 10.0
"""Seconds that a new connection may take to say who it is."""

LONGEST = 4096
"""Bytes of the line in which it does."""

KEY = "keep/peers"
"""Key in the store: the first process's port, and the token that others show."""

Connections = dict[socket.socket, Mapping[str, Any]]
"""Connection → who is at its other end: rank, host, pid."""


class Peers:
    """The connections of one process of a run, and the thread that listens to them.

    Args:
        store: key-value store of all processes (:class:`torch.distributed.Store`).
        rank: of this process.
        world: number of processes.
        host: name of the first process's machine.
        timeout: seconds in which all connections must be made, however many strangers connect meanwhile.

    Raises:
        UserError: a connection cannot be made.
    """

    def __init__(self, store: Any, rank: int, world: int, host: str, timeout: float) -> None:
        self.rank, self.world = rank, world
        self._me = {"rank": rank, "host": socket.gethostname(), "pid": os.getpid()}
        self._lost = ""
        self._known, self._ended = threading.Event(), threading.Event()
        self._others: Connections = {}
        try:
            self._others = self._accept(store, timeout) if rank == 0 else self._connect(store, host, timeout)
        except OSError as error:
            raise UserError(f"rank {rank} of {world} cannot connect to the others: {error}") from None
        for connection in self._others:
            connection.settimeout(None)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # notices a lost machine
        os.register_at_fork(after_in_child=self._close)  # a data worker must not keep them open
        self._listener = threading.Thread(target=self._listen, daemon=True, name="peers")
        self._listener.start()

    def lost(self, wait: float = 0.0) -> str:
        """Which process ended before its time and why, in one line; "" if none.

        Args:
            wait: seconds to wait for the news.
        """
        self._known.wait(wait)
        return self._lost

    def leave(self, reason: str = "") -> None:
        """End the connections.

        Args:
            reason: why this process ends before its time; "": it has finished.
        """
        self._tell({"ended": reason})
        self._ended.set()
        for connection in self._others:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # wakes the listener
        self._listener.join(5)
        self._close()

    # --- connecting ---------------------------------------------------------------------------------------------

    def _accept(self, store: Any, timeout: float) -> Connections:
        token, found, end = secrets.token_hex(16), {}, monotonic() + timeout
        with _server() as server:
            store.set(KEY, json.dumps([server.getsockname()[1], token]))
            while len(found) < self.world - 1:
                try:
                    server.settimeout(_left(end))
                    connection, _ = server.accept()
                except TimeoutError:
                    others = f"{len(found)} of {self.world - 1} other processes"
                    raise TimeoutError(f"{others} connected within {timeout:g} seconds") from None
                hello = self._greet(connection, token, min(end, monotonic() + HELLO))
                if hello is None:  # a stranger, such as a port scan
                    connection.close()
                else:
                    found[connection] = hello
        return found

    def _greet(self, connection: socket.socket, token: str, end: float) -> Mapping[str, Any] | None:
        """Who is at the other end; None: no process of this run, or none that says so before the time ``end``."""
        try:
            hello = json.loads(_read_line(connection, end))
            if hello.pop("token") != token:
                return None
            connection.sendall(_line(self._me))
        except (OSError, ValueError, KeyError, AttributeError, TypeError):  # not an object, or one of another kind
            return None
        return hello

    def _connect(self, store: Any, host: str, timeout: float) -> Connections:
        port, token = json.loads(store.get(KEY))
        end = monotonic() + timeout
        connection = socket.create_connection((host, port), timeout)
        connection.sendall(_line({**self._me, "token": token}))
        return {connection: json.loads(_read_line(connection, end))}

    # --- listening ----------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Read what the others say until all have ended, or one too early."""
        with selectors.DefaultSelector() as waiting:
            for connection in self._others:
                waiting.register(connection, selectors.EVENT_READ)
            while waiting.get_map() and not self._lost and not self._ended.is_set():
                for key, _ in waiting.select():
                    connection: Any = key.fileobj
                    waiting.unregister(connection)  # each says one thing
                    try:
                        self._heard(self._others[connection], json.loads(_read_line(connection)))
                    except (OSError, ValueError):
                        self._heard(self._others[connection], None)
        if self._lost:
            self._leave_in_time()

    def _heard(self, other: Mapping[str, Any], message: Mapping[str, str] | None) -> None:
        """Take the message of another process; None: its connection ended without one."""
        if self._lost or self._ended.is_set():
            return
        who = f"rank {other['rank']} of {self.world} (process {other['pid']} on {other['host']})"
        if message is None:
            lost = f"{who} was killed, most often because memory ran out, or its machine was lost"
            self._lost = f"{lost}: start the run again with --auto-resume"
        elif "lost" in message:
            self._lost = message["lost"]
        elif message["ended"]:
            self._lost = f"{who} ended: {message['ended']}"
        if self._lost:
            if self.rank == 0:
                self._tell({"lost": self._lost})
            self._known.set()

    def _leave_in_time(self) -> None:
        """End this process if it does not end by itself."""
        if not self._ended.wait(PATIENCE):
            sys.stderr.write(f"error: {self._lost}\n")
            sys.stderr.flush()
            os._exit(2)

    def _tell(self, message: Mapping[str, str]) -> None:
        for connection in self._others:
            with suppress(OSError):
                connection.sendall(_line(message))

    def _close(self) -> None:
        for connection in self._others:
            connection.close()


def _server() -> socket.socket:
    try:
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    except (OSError, ValueError):  # a machine without IPv6
        return socket.create_server(("", 0))


def _line(message: Mapping[str, Any]) -> bytes:
    return (json.dumps(message) + "\n").encode()


def _left(end: float) -> float:
    """Seconds until the time ``end``; TimeoutError if none are left."""
    left = end - monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _read_line(connection: socket.socket, end: float | None = None) -> bytes:
    """The next line, and no byte more; of a new connection, until the time ``end`` and of at most ``LONGEST`` bytes."""
    line = b""
    while not line.endswith(b"\n"):
        if end is not None:
            connection.settimeout(_left(end))
            if len(line) == LONGEST:
                raise ConnectionError("the line does not end")
        byte = connection.recv(1)
        if not byte:
            raise ConnectionError("the connection ended")
        line += byte
    return line
