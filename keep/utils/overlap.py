"""Steps of a stream that run at the same time, each in its own thread, with bounded queues between them."""

import threading
from collections.abc import Generator, Iterable
from queue import Empty, Full, Queue
from typing import Any, TypeVar

T = TypeVar("T")
POLL = 0.05  # s
LARGEST = 8 << 20  # bytes of a frame; one of 1080p has 6 MB


def ahead(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """Yield ``items``, which a thread computes ahead.

    An error of the thread is raised here. Closing the generator stops the thread and closes ``items`` in it.

    Args:
        items: an iterable; it is used by the new thread alone.
        depth: items that may wait to be taken; one more is held by the thread. 0: no thread.
    """
    if depth == 0:
        yield from items
        return
    queue: Queue[tuple[Any, BaseException | None, bool]] = Queue(depth)  # (item, error, whether the stream ended)
    stop = threading.Event()

    def put(entry: tuple[Any, BaseException | None, bool]) -> None:
        while not stop.is_set():
            try:
                return queue.put(entry, timeout=POLL)
            except Full:
                continue

    def work() -> None:
        error = None
        try:
            for item in items:
                put((item, None, False))
                if stop.is_set():
                    break
        except BaseException as raised:  # raised again in the thread that takes the items
            error = raised
        finally:
            if isinstance(items, Generator):
                items.close()
        put((None, error, True))

    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error, ended = queue.get()
            if error is not None:
                raise error
            if ended:
                return
            yield item
    finally:
        stop.set()
        while thread.is_alive():  # frees the items that wait, too
            try:
                queue.get_nowait()
            except Empty:
                thread.join(POLL)


def frames_ahead(frame_bytes: int, budget: int, most: int) -> int:
    """How many frames may wait so that they take ``budget`` bytes, at most ``most``; 0 for frames of over 1080p.

    Each step that runs ahead holds some frames more: in 4K these would double the peak memory.
    """
    return max(1, min(most, budget // frame_bytes)) if 0 < frame_bytes <= LARGEST else 0
