"""Mistakes that pydantic finds, in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from keep.utils.errors import UserError


def first_mistake(error: ValidationError) -> str:
    """The first mistake, ``place: what is wrong``, in one line."""
    first: Any = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]


@contextmanager
def checked(what: str) -> Iterator[None]:
    """Inside, options that do not fit a class raise a :class:`UserError`, ``what: place: what is wrong``."""
    try:
        yield
    except ValidationError as error:
        raise UserError(f"{what}: {first_mistake(error)}") from None
