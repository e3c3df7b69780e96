import threading

import pytest

from keep.utils.overlap import ahead, frames_ahead


def test_items_come_in_order_from_another_thread():
    threads = set()

    def items():
        for i in range(20):
            threads.add(threading.current_thread())
            yield i

    assert list(ahead(ahead(items(), 1), 3)) == list(range(20))
    assert threading.current_thread() not in threads


def test_the_queue_is_bounded():
    made = []

    def items():
        for i in range(100):
            made.append(i)
            yield i

    stream = ahead(items(), 2)
    for i in range(10):
        assert next(stream) == i
        assert len(made) <= i + 1 + 2 + 1 + 1  # taken, waiting, held by the thread, being made
    stream.close()


def test_an_error_is_raised_where_the_items_are_taken():
    def items():
        yield 1
        raise OSError("broken")

    stream = ahead(ahead(items(), 1), 1)
    assert next(stream) == 1
    with pytest.raises(OSError, match="broken"):
        next(stream)


def test_closing_ends_the_threads_and_closes_the_source():
    closed = threading.Event()

    def items():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    before = threading.active_count()
    stream = ahead(ahead(items(), 1), 1)
    next(stream)
    assert threading.active_count() == before + 2
    stream.close()
    assert closed.is_set()
    assert threading.active_count() == before


def test_steps_overlap():
    """A step waits for the other one, which would never come if they took turns."""
    meet = threading.Barrier(2, timeout=5)

    def slow():
        for i in range(3):
            yield i
            if i:
                meet.wait()

    for i in ahead(slow(), 1):
        if i:
            meet.wait()


def test_depth():
    assert frames_ahead(6_000_000, 64_000_000, 8) == 8
    assert frames_ahead(6_000_000, 13_000_000, 8) == 2
    assert frames_ahead(6_000_000, 1_000_000, 8) == 1
    assert frames_ahead(25_000_000, 64_000_000, 8) == 0, "4K"
    assert list(ahead(iter([1, 2]), 0)) == [1, 2]
