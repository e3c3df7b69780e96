"""Ways in which files get damaged, drawn from a seed."""

from collections.abc import Callable

import numpy as np

Operation = Callable[[bytes, np.random.Generator], bytes]


def damage(data: bytes, seed: int, number: int) -> tuple[bytes, list[str]]:
    """``data`` after one to three operations, and their names. The same for the same seed and number."""
    rng = np.random.default_rng([seed, number])
    names = [str(rng.choice(list(OPERATIONS))) for _ in range(int(rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1])))]
    for name in names:
        data = OPERATIONS[name](data, rng)
    return data, names


def _piece(data: bytes, rng: np.random.Generator) -> tuple[int, int]:
    """Begin and end of a piece of up to a fifth of the file; short ones as often as long ones."""
    length = int(np.exp(rng.uniform(0, np.log(max(2, len(data) // 5)))))
    begin = int(rng.integers(0, max(1, len(data) - length)))
    return begin, begin + length


def flip_bits(data: bytes, rng: np.random.Generator) -> bytes:
    changed = np.frombuffer(data, np.uint8).copy()
    if len(changed):
        places = rng.integers(0, len(changed), int(rng.integers(1, 20)))
        changed[places] ^= (1 << rng.integers(0, 8, len(places))).astype(np.uint8)
    return changed.tobytes()


def zero(data: bytes, rng: np.random.Generator) -> bytes:
    begin, end = _piece(data, rng)
    return data[:begin] + bytes(end - begin) + data[end:]


def noise(data: bytes, rng: np.random.Generator) -> bytes:
    begin, end = _piece(data, rng)
    return data[:begin] + rng.bytes(end - begin) + data[end:]


def cut_out(data: bytes, rng: np.random.Generator) -> bytes:
    begin, end = _piece(data, rng)
    return data[:begin] + data[end:]


def cut_off(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(0, len(data) + 1))]


def repeat(data: bytes, rng: np.random.Generator) -> bytes:
    begin, end = _piece(data, rng)
    return data[:end] + data[begin:end] + data[end:]


def insert(data: bytes, rng: np.random.Generator) -> bytes:
    begin, end = _piece(data, rng)
    return data[:begin] + rng.bytes(end - begin) + data[begin:]


def move(data: bytes, rng: np.random.Generator) -> bytes:
    begin, end = _piece(data, rng)
    to = int(rng.integers(0, len(data) + 1 - (end - begin))) if len(data) > end - begin else 0
    rest = data[:begin] + data[end:]
    return rest[:to] + data[begin:end] + rest[to:]


OPERATIONS: dict[str, Operation] = {
    "flip bits": flip_bits, "zero": zero, "noise": noise, "cut out": cut_out, "cut off": cut_off, "repeat": repeat,
    "insert": insert, "move": move,
}  # fmt: skip
