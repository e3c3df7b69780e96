"""From option data to typed options: the schema's check, and the report of what is wrong."""

from collections.abc import Callable, Iterable
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeVar

from pydantic import ValidationError

from keep.config.merging import Source, at
from keep.config.plugins import import_registered
from keep.config.schema import RunOptions
from keep.config.yaml_text import Location
from keep.utils.errors import UserError, shortened

Config = TypeVar("Config", bound=RunOptions)
T = TypeVar("T")

MOST_MISTAKES = 20
"""Mistakes of one file that are listed; the others are counted."""

_TEXT_EXPECTED = {"string_type", "path_type", "literal_error"}
"""Errors of options that take text. A number or a boolean stands for its text there."""
_WITHOUT_VALUE = {"unknown_option", "unknown_type", "missing", "no_type"}
"""Errors whose message is complete without the value."""


def check(source: Source, schema: type[Config], title: str) -> Config:
    """The typed options.

    Raises:
        UserError: lists all mistakes.
    """
    import_registered()
    return validated(source, schema.model_validate, title)


def validated(source: Source, validate: Callable[[Any], T], title: str) -> T:
    """``validate(source.data)``: numbers become text where text is expected, unknown inherited options are dropped.

    Raises:
        UserError: lists all mistakes, each with file and line.
    """
    data, inherited, texts = source.data, set(source.inherited), dict(source.texts)
    while True:
        try:
            return validate(data)
        except ValidationError as error:
            errors = error.errors(include_url=False)
        foreign = inherited & {e["loc"] for e in errors if e["type"] == "unknown_option"}
        written = {_inside(e, data) for e in errors if e["type"] in _TEXT_EXPECTED} & texts.keys()
        if not foreign and not written:
            raise UserError(_mistakes(errors, source, title))
        for loc in foreign:
            data = _without(data, loc)
        for loc in written:
            data = _with(data, loc, texts.pop(loc))
        inherited -= foreign


def _without(data: Any, loc: Location) -> Any:
    """A copy of ``data`` without the option at ``loc``."""
    head, rest = loc[0], loc[1:]
    if isinstance(data, list):
        return [_without(v, rest) if i == head else v for i, v in enumerate(data)]
    return {k: _without(v, rest) if k == head else v for k, v in data.items() if k != head or rest}


def _with(data: Any, loc: Location, value: Any) -> Any:
    """A copy of ``data`` with ``value`` at ``loc``."""
    if not loc:
        return value
    head, rest = loc[0], loc[1:]
    if isinstance(data, list):
        return [_with(v, rest, value) if i == head else v for i, v in enumerate(data)]
    return {k: _with(v, rest, value) if k == head else v for k, v in data.items()}


def _mistakes(errors: Iterable[Any], source: Source, title: str) -> str:
    placed = [(_inside(e, source.data), e) for e in errors]
    # Of the branches of a union (a path, or a mapping) the one that fits the value best is further inside it.
    outer = {loc[:n] for loc, _ in placed for n in range(len(loc))}
    placed = [(loc, e) for loc, e in placed if loc not in outer or loc == e["loc"]]
    rows = [_mistake(loc, list(group), source) for loc, group in groupby(placed, key=itemgetter(0))]
    count = f"{len(rows)} mistakes" if len(rows) > 1 else "a mistake"
    more = [f"and {len(rows) - MOST_MISTAKES} more"] if len(rows) > MOST_MISTAKES else []
    return "\n  ".join([f"{title} has {count}:", *rows[:MOST_MISTAKES], *more])


def _mistake(loc: Location, placed: list[tuple[Location, Any]], source: Source) -> str:
    """The line of an option: its errors are those of the branches of a union."""
    errors = [error for _, error in placed]
    path = ".".join(_part(p) for p in loc) or "the file"
    value, written = errors[0]["input"], source.texts.get(loc)
    shown = isinstance(value, str | int | float) and errors[0]["type"] not in _WITHOUT_VALUE
    got = f" (got {shortened(value) if written is None else shortened(written)[1:-1]})" if shown else ""
    messages = ", or ".join(dict.fromkeys(error["msg"] for error in errors))
    return f"{source.where(loc)}  {path}: {messages}{got}".strip()


def _inside(error: Any, data: Any) -> Location:
    """The location of an error, without the branches of unions that pydantic adds to it."""
    loc: Location = ()
    for part in error["loc"]:
        inside = at(data, loc)
        if isinstance(inside, dict):
            known = part in inside or "[" not in str(part)  # an option that is missing, or has a wrong default
        else:
            known = isinstance(inside, list) and part in range(len(inside) + (error["type"] == "missing"))
        loc = (*loc, part) if known else loc
    return loc


def _part(key: str | int) -> str:
    text = str(key)
    return text if text.isprintable() and 0 < len(text) <= 80 else shortened(text)
