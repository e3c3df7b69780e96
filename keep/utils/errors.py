"""The exception whose message is for the user."""

import difflib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from keep.utils.credentials import without_credentials


class UserError(Exception):
    """Bad input. The message is one clear line: what is wrong, where, and what to do.

    Entry points print it as ``error: …`` and exit with status 2 (see :mod:`keep.config.cli`).
    """


class OptionError(UserError):
    """A mistake that concerns an option of a class, which does not know where it stands in the options file.

    Args:
        message: ``{place}`` in it stands before the name of an option.
        place: what is known of the place, ``model.perceptual.``; :func:`placed` adds to it from outside.
    """

    def __init__(self, message: str, place: str = "") -> None:
        super().__init__(message.replace("{place}", place))
        self.message, self.place = message, place


@contextmanager
def placed(name: str | int) -> Iterator[None]:
    """Inside, the class at option ``name`` is built: an :class:`OptionError` names its options with their full path."""
    try:
        yield
    except OptionError as error:
        raise type(error)(error.message, f"{name}.{error.place}") from error


def nearest(name: object, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the known name closest to ``name``, or ``""`` when none is close."""
    close = difflib.get_close_matches(str(name)[:100], list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def plain(value: Any) -> str:
    """The value of an option as in an options file: text as it is, ``true``, ``null``, ``[1, 2]``."""
    return without_credentials(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def shortened(value: object, length: int = 80) -> str:
    """``repr(value)`` in one line of at most ``length`` characters."""
    if isinstance(value, int) and value.bit_length() > 4 * length:  # Python refuses to print numbers of 4300 digits
        return f"a number of more than {length} digits"
    text = (
        repr(without_credentials(value)[: length + 1]) if isinstance(value, str) else without_credentials(repr(value))
    )
    return text if len(text) <= length else text[: length - 1] + "…"


def first_line(error: Exception) -> str:
    """The first line of an error's message, without credentials of an address; or its kind."""
    return without_credentials(str(error).strip().partition("\n")[0]) or type(error).__name__


def last_line(error: Exception) -> str:
    """The last line of an error's message, for libraries that begin with places in their source."""
    return without_credentials(str(error).strip().rpartition("\n")[2]) or type(error).__name__


@contextmanager
def reported(what: str, reason: Callable[[Exception], str] = first_line) -> Iterator[None]:
    """Inside, any error of a library becomes a :class:`UserError` of one line, ``what: reason``."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what}: {reason(error)}") from error
