"""Processes that watch each other: which one ended, and why."""

import json
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
import torch.distributed as dist

from keep.training import peers
from keep.training.distributed import Ranks
from keep.training.joining import check_alike, waited
from keep.training.peers import Peers
from keep.utils.errors import UserError
from keep.utils.nested import flat
from keep.utils.signals import Stopped, StopRequest

Three = list[Peers]


def in_threads(work: Callable[[int], object]) -> None:
    """``work(rank)`` for three ranks at once."""
    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


@pytest.fixture
def three() -> Iterator[Three]:
    store, made = dist.HashStore(), {}
    in_threads(lambda rank: made.update({rank: Peers(store, rank, 3, "localhost", 20)}))
    yield [made[rank] for rank in range(3)]
    for one in made.values():
        one.leave()


def kill(one: Peers) -> None:
    """End its connections as the system does for a killed process."""
    one._ended.set()
    for connection in one._others:
        connection.shutdown(2)


@pytest.mark.parametrize("killed", [0, 1, 2])
def test_every_other_process_learns_which_one_was_killed(three: Three, killed: int) -> None:
    kill(three[killed])
    for one in three:
        if one.rank != killed:
            line = one.lost(20)
            assert line.startswith(f"rank {killed} of 3 (process ")
            assert "was killed" in line


@pytest.mark.parametrize("failed", [0, 1])
def test_every_other_process_learns_why_one_ended(three: Three, failed: int) -> None:
    three[failed].leave("clips/a.mp4: cannot be read")
    for one in three:
        if one.rank != failed:
            assert one.lost(20).endswith("ended: clips/a.mp4: cannot be read")


def test_processes_that_finish_one_after_the_other_lose_none(three: Three) -> None:
    for one in reversed(three):
        assert one.lost() == ""
        one.leave()
    assert [one.lost() for one in three] == [""] * 3


def test_a_process_that_still_waits_for_a_lost_one_ends_in_one_line(three: Three, monkeypatch, capfd) -> None:
    ends = []
    ended = threading.Event()
    monkeypatch.setattr(peers.os, "_exit", lambda status: (ends.append(status), ended.set()))
    monkeypatch.setattr(peers, "PATIENCE", 0.0)
    kill(three[2])
    assert ended.wait(20)
    assert ends[0] == 2
    assert "error: rank 2 of 3" in capfd.readouterr().err


def test_options_are_compared_and_the_first_difference_is_named() -> None:
    store, lines = dist.HashStore(), {}
    given = [{"name": "a", "train": {"iters": n, "compile": []}, "x": [1, n], "y": [{"z": n}]} for n in (10, 10, 20)]
    started = [{key: json.dumps(value) for key, value in flat(options)} for options in given]
    assert started[0] == {
        "name": '"a"', "train.iters": "10", "train.compile": "[]", "x": "[1, 10]", "y.0.z": "10",
    }  # fmt: skip

    def check(rank: int) -> None:
        with pytest.raises(UserError) as error:
            check_alike(store, Ranks(rank, 3, rank), started[rank])
        lines[rank] = str(error.value)

    in_threads(check)
    assert len(set(lines.values())) == 1
    assert lines[0].startswith("rank 2 of 3 was started with other options than rank 0: train.iters is 20, not 10.")


def test_a_signal_ends_the_wait_for_other_processes() -> None:
    request, forever = StopRequest(), threading.Event()
    assert waited(lambda: 3, request) == 3
    request.name = "SIGTERM"
    with pytest.raises(Stopped, match="after SIGTERM, while it waited for the other processes"):
        waited(forever.wait, request)
    forever.set()


def test_strangers_are_turned_away_and_the_processes_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "HELLO", 0.2)
    store, made = dist.HashStore(), {}
    first = threading.Thread(target=lambda: made.update({0: Peers(store, 0, 2, "localhost", 20)}))
    first.start()
    port, _ = json.loads(store.get(peers.KEY))
    strangers = [socket.create_connection(("localhost", port), 20) for _ in range(5)]
    for stranger, text in zip(strangers, (b"GET /\n", b"{}\n", b"[1]\n", b'{"token": "x"}\n', b""), strict=True):
        stranger.sendall(text)  # the last one stays silent
    made[1] = Peers(store, 1, 2, "localhost", 20)
    first.join(20)
    assert [stranger.recv(1) for stranger in strangers] == [b""] * 5
    for one in made.values():
        one.leave()
    for stranger in strangers:
        stranger.close()


class Stranger:
    """A connection, and the server that accepts it again and again: all of them send a byte every five seconds."""

    def __init__(self, letters: bytes, clock: list[float]) -> None:
        self.letters, self.clock, self.connected = letters, clock, 0

    def accept(self) -> tuple["Stranger", None]:
        self.connected += 1
        assert self.connected < 1000, "it waits for ever"
        self.clock[0] += 5
        return self, None

    def recv(self, _: int) -> bytes:
        self.clock[0] += 5
        assert self.clock[0] < 10_000, "it waits for ever"
        return self.letters

    def getsockname(self) -> tuple[str, int]:
        return "", 1

    def settimeout(self, seconds: float) -> None:
        assert 0 < seconds <= 600

    def __enter__(self) -> "Stranger":
        return self

    def __exit__(self, *_: object) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize("letters", [b"", b"x", b"\n"])
def test_strangers_do_not_make_it_wait_for_ever(monkeypatch: pytest.MonkeyPatch, letters: bytes) -> None:
    clock = [0.0]
    stranger = Stranger(letters, clock)
    monkeypatch.setattr(peers, "monotonic", lambda: clock[0], raising=False)
    monkeypatch.setattr(peers, "_server", lambda: stranger)
    with pytest.raises(
        UserError, match="cannot connect to the others: 0 of 2 other processes connected within 600 sec"
    ):
        Peers(dist.HashStore(), 0, 3, "localhost", 600)
    assert 600 <= clock[0] < 620
