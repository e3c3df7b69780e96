"""Option data with the place of every value: lay a file upon its bases, and the command line upon both."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from keep.config.yaml_text import MAX_DEPTH, Location, YamlError, parse_yaml
from keep.utils.errors import UserError, shortened


@dataclass(frozen=True)
class Source:
    """Option data as read from files and the command line, before any check.

    Attributes:
        data: the options.
        lines: location → the file and line, or the argument, that sets its value.
        texts: location → how its number, boolean or null is written: what an option that takes text gets.
        inherited: options that come from a base, in a mapping whose ``type`` the file has changed. Those that the new
            class does not have are dropped. An option in the file itself that the class does not have is an error.
    """

    data: Any
    lines: dict[Location, str] = field(default_factory=dict)
    texts: dict[Location, str] = field(default_factory=dict)
    inherited: frozenset[Location] = frozenset()

    def where(self, loc: Location) -> str:
        """The file and line of the deepest known part of ``loc``."""
        while loc and loc not in self.lines:
            loc = loc[:-1]
        return self.lines.get(loc, "")

    def part(self, loc: Location) -> "Source":
        """What is at ``loc``."""

        def inside(places: Any) -> Iterator[Location]:
            return (place for place in places if place[: len(loc)] == loc)

        n = len(loc)
        return Source(
            at(self.data, loc),
            {p[n:]: self.lines[p] for p in inside(self.lines)},
            {p[n:]: self.texts[p] for p in inside(self.texts)},
            frozenset(p[n:] for p in inside(self.inherited)),
        )

    def below(self, loc: Location) -> "Source":
        """The same options, at ``loc`` of otherwise empty ones."""
        data = self.data
        for key in reversed(loc):
            data = {key: data}
        return Source(
            data,
            {(*loc, *p): v for p, v in self.lines.items()},
            {(*loc, *p): v for p, v in self.texts.items()},
            frozenset((*loc, *p) for p in self.inherited),
        )


def merge(base: Source, over: Source) -> Source:
    """``over`` laid upon ``base``. Nothing remains of the place of a value that it replaces."""
    lines = {p: v for p, v in base.lines.items() if _stays(p, base.data, over.data)}
    texts = {p: v for p, v in base.texts.items() if _stays(p, base.data, over.data)}
    inherited = frozenset(p for p in base.inherited if _stays(p, base.data, over.data) and p not in over.lines)
    return Source(
        _merge(base.data, over.data),
        {**lines, **over.lines},
        {**texts, **over.texts},
        inherited | over.inherited | {*_newly_inherited(base.data, over.data, ())},
    )


def _merge(base: Any, over: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    return {**base, **{k: _merge(base[k], v) if k in base else v for k, v in over.items()}}


def _stays(loc: Location, base: Any, over: Any) -> bool:
    """Whether the value of ``base`` at ``loc`` is part of the merged data."""
    for key in loc:
        if not isinstance(base, dict) or not isinstance(over, dict):
            return False  # a list or a value is replaced as a whole
        if key not in over:
            return True
        base, over = base.get(key), over[key]
    return isinstance(base, dict) and isinstance(over, dict)


def _newly_inherited(base: Any, over: Any, loc: Location) -> Iterator[Location]:
    """The options of ``base`` that stay where ``over`` changes the ``type``."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return
    if "type" in base and "type" in over and base["type"] != over["type"]:
        yield from ((*loc, k) for k in base if k not in over)
    for k in base.keys() & over.keys():
        yield from _newly_inherited(base[k], over[k], (*loc, k))


def override(source: Source, assignment: str) -> Source:
    """Apply one ``a.b.c=value`` of the command line.

    The value is read as YAML, and the schema gives it its type. An option that takes text gets the value as it was
    typed, unless it is in quotes.
    """
    key, equals, text = assignment.partition("=")
    key, text = key.strip(), text.strip()
    parts = key.split(".")
    if not equals or not key:
        raise UserError(f"--set {shortened(assignment)}: expected key=value, e.g. train.optim.lr=3e-4")
    if len(parts) > MAX_DEPTH:
        raise UserError(f"--set: a key of more than {MAX_DEPTH} parts: {shortened(key)}")
    argument = f"--set {key}" if len(key) <= 200 and key.isprintable() else f"--set {shortened(key)}"
    loc = _location(source.data, parts)
    value = _typed(text, argument)
    inherited = {i for i in source.inherited if i[: len(loc)] != loc}
    if parts[-1] == "type":
        inherited |= {*_newly_inherited(at(source.data, loc[:-1]), {"type": value.data}, loc[:-1])}

    def others(places: dict[Location, str]) -> dict[Location, str]:
        return {p: v for p, v in places.items() if p[: len(loc)] != loc}

    parents = {loc[:i]: argument for i in range(1, len(loc))}
    placed = value.below(loc)
    return Source(
        _assign(source.data, parts, value.data, argument),
        {**parents, **others(source.lines), **placed.lines},
        {**others(source.texts), **placed.texts},
        frozenset(inherited),
    )


def _location(data: Any, parts: list[str]) -> Location:
    """The parts of a key; those that stand for an entry of a list as numbers."""
    loc: Location = ()
    for part in parts:
        index = isinstance(at(data, loc), list) and part.isdecimal() and len(part) < 9
        loc = (*loc, int(part) if index else part)
    return loc


def _typed(text: str, argument: str) -> Source:
    """The value of an override. Its text is what was typed, of a whole mapping or list, too."""
    try:
        parsed = parse_yaml(text)
    except YamlError as error:
        if text[:1] in ("[", "{", '"', "'") or not text.isprintable():
            raise UserError(f"{argument}: the value is not valid YAML: {error}") from None
        return Source(text, {(): argument})  # e.g. a name with ": " in it
    if isinstance(parsed.data, str) and text[:1] not in ('"', "'"):
        return Source(text, {(): argument})  # with what YAML takes for a comment
    texts = {**parsed.texts, (): text}
    return Source(parsed.data, {loc: argument for loc in ((), *parsed.lines)}, texts)


def _assign(data: Any, parts: list[str], value: Any, argument: str) -> Any:
    """A copy of ``data`` in which the value at the path ``parts`` is ``value``."""
    head, rest = parts[0], parts[1:]
    if isinstance(data, list):
        if not head.isdecimal() or len(head) >= 9 or int(head) >= len(data):
            raise UserError(
                f"{argument}: {shortened(head)} is not an index of that list; it has {len(data)} entries, from 0"
            )
        i = int(head)
        return [*data[:i], _assign(data[i], rest, value, argument) if rest else value, *data[i + 1 :]]
    if isinstance(data, str):  # "flow: dis" is short for "flow: {type: dis}"
        data = {"type": data}
    old = data if isinstance(data, dict) else {}
    return {**old, head: _assign(old.get(head), rest, value, argument) if rest else value}


def at(data: Any, loc: Location) -> Any:
    """What is at ``loc``; None where there is nothing."""
    for key in loc:
        if isinstance(data, list) and isinstance(key, int) and key < len(data):
            data = data[key]
        else:
            data = data.get(key) if isinstance(data, dict) else None
    return data
