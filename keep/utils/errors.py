"""The exception whose message is for the user."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. The message is one clear line: what is wrong, where, and what to do.

    Entry points print it as ``error: …`` and exit with status 2 (see :mod:`keep.config.cli`).
    """


def nearest(name: object, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the known name closest to ``name``, or ``""`` when none is close."""
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
