"""Nested mappings and lists as one list of values."""

from collections.abc import Iterator, Mapping
from typing import Any


def flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """``a.b.0.c`` and value for every value of nested options. A list of plain values is one value, as is ``{}``."""
    children: Mapping[Any, Any] = {}
    if isinstance(value, Mapping):
        children = value
    elif isinstance(value, list) and any(isinstance(item, Mapping | list) for item in value):
        children = dict(enumerate(value))
    for name, child in children.items():
        yield from flat(child, f"{key}.{name}" if key else str(name))
    if not children:
        yield key, value
