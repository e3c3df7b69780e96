"""From YAML to checked, frozen options: read, merge, override, check.

``load(path, overrides, TrainConfig)`` reads a YAML file and the ``_base_`` files that it includes, applies
``key=value`` overrides, and checks the result against the schema. All mistakes are reported together, each with its
file and line and the nearest known name.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from keep.config.plugins import import_registered, load_plugin
from keep.config.registry import Options, dump
from keep.config.schema import RunOptions
from keep.utils.errors import UserError

Config = TypeVar("Config", bound=RunOptions)
Location = tuple[str | int, ...]
"""The keys and list indices that lead to an option."""


@dataclass(frozen=True)
class Source:
    """Option data as read from files and the command line, before any check.

    Attributes:
        data: the options.
        lines: location → the file and line, or the argument, that gives its value.
        inherited: options that come from a base, in a mapping whose ``type`` the file has changed. Those that the new
            class does not have are dropped. An option in the file itself that the class does not have is an error.
    """

    data: dict[str, Any]
    lines: dict[Location, str]
    inherited: frozenset[Location] = frozenset()

    def where(self, loc: Location) -> str:
        """The file and line of the deepest known part of ``loc``."""
        while loc and loc not in self.lines:
            loc = loc[:-1]
        return self.lines.get(loc, "")


def load(path: Path | str, overrides: Iterable[str], schema: type[Config]) -> Config:
    """Read, override and check an options file.

    Raises:
        UserError: lists every mistake on a separate line: file:line, the option's path, the correction.
    """
    source = read_yaml(Path(path))
    for assignment in overrides:
        source = override(source, assignment)
    plugins = source.data.get("plugins")
    for plugin in plugins if isinstance(plugins, list) else ():
        load_plugin(Path(str(plugin)))
    return check(source, schema, str(path))


# --- read --------------------------------------------------------------------------------------------------------


def read_yaml(path: Path, including: tuple[Path, ...] = ()) -> Source:
    """A YAML file, merged over the files that its ``_base_`` names (relative to the file).

    A mapping is merged key by key. Where its ``type`` changes, the base's other options stay as far as the new class
    has them. ``plugins`` add up. A mapping below the top may have a ``_base_``, too; ``FILE#a.b`` includes only what
    the file has at ``a.b``.

    Args:
        path: the file.
        including: the files that include this one, directly or not.

    Raises:
        UserError: no such file, not valid YAML, or a file that includes itself.
    """
    path = Path(path).expanduser()
    if path.resolve() in including:
        raise UserError(f"{path}: includes itself through _base_")
    own = _parse(path)
    source = Source({}, {})
    for loc, given in _bases(own.data, ()):
        for base in _file_names(given, "_base_", path):
            source = merge(source, _included(base, loc, (*including, path.resolve())))
    plugins = _file_names(own.data.get("plugins"), "plugins", path)
    plugins = [*source.data.get("plugins", []), *(str(p.resolve()) for p in plugins)]
    source = merge(source, Source(_without_bases(own.data), own.lines))
    if plugins:
        source.data["plugins"] = plugins
    return source


def _parse(path: Path) -> Source:
    """One file, without what it includes."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise UserError(f"cannot read the options file {path}: {reason}") from None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        data = loader.construct_document(node) if node else {}
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        reason = str(getattr(error, "problem", None) or error).partition("\n")[0]
        raise UserError(f"{path}{line}: not valid YAML: {reason}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected a mapping of options at the top")
    lines: dict[Location, str] = {(): f"{path}:{node.start_mark.line + 1}" if node else str(path)}
    return Source(data, lines | {loc: f"{path}:{line}" for loc, line in _line_numbers(node, ())})


def _line_numbers(node: Any, loc: Location) -> Iterator[tuple[Location, int]]:
    """The location of every key and list entry of a YAML node, and its line."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*loc, key.value), key.start_mark.line + 1
            yield from _line_numbers(value, (*loc, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            yield (*loc, i), value.start_mark.line + 1
            yield from _line_numbers(value, (*loc, i))


def _bases(data: dict[str, Any], loc: Location) -> Iterator[tuple[Location, Any]]:
    """The location of every mapping with a ``_base_``, from the top down, and its value."""
    if "_base_" in data:
        yield loc, data["_base_"]
    for key, value in data.items():
        if isinstance(value, dict):
            yield from _bases(value, (*loc, key))


def _without_bases(data: dict[str, Any]) -> dict[str, Any]:
    """A copy of ``data`` without its ``_base_`` keys."""
    return {k: _without_bases(v) if isinstance(v, dict) else v for k, v in data.items() if k != "_base_"}


def _included(base: Path, loc: Location, including: tuple[Path, ...]) -> Source:
    """The options of a ``_base_``, ``FILE`` or ``FILE#a.b``, at ``loc``."""
    file, _, part = str(base).partition("#")
    source = read_yaml(Path(file), including)
    inside: Location = tuple(part.split(".")) if part else ()
    data: Any = _at(source.data, inside)
    if not isinstance(data, dict):
        raise UserError(f"{including[-1]}: _base_: {file} has no mapping {part}")
    for key in reversed(loc):
        data = {key: data}
    lines = {(*loc, *k[len(inside) :]): v for k, v in source.lines.items() if k[: len(inside)] == inside}
    return Source(
        data, lines, frozenset((*loc, *k[len(inside) :]) for k in source.inherited if k[: len(inside)] == inside)
    )


def _file_names(given: Any, key: str, path: Path) -> list[Path]:
    """The files that the value of ``key`` names, one or a list, relative to the YAML file at ``path``."""
    given = given or []
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, list) or not all(isinstance(p, str) for p in given):
        raise UserError(f"{path}: {key}: expected a file name or a list of them")
    return [path.parent / Path(p).expanduser() for p in given]


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads ``3e-4`` as a number (YAML 1.1 wants ``3.0e-4``) and refuses a repeated key."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a plain word", key.start_mark)
            if key.value in seen and key.value != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is given twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    yaml.resolver.re.compile(r"^[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$"),  # pyright: ignore[reportAttributeAccessIssue]
    list("-+0123456789"),
)


# --- merge and override --------------------------------------------------------------------------------------------


def merge(base: Source, over: Source) -> Source:
    """``over`` laid upon ``base``."""
    return Source(
        _merge(base.data, over.data),
        {**base.lines, **over.lines},
        (base.inherited - over.lines.keys()) | over.inherited | {*_newly_inherited(base.data, over.data, ())},
    )


def _merge(base: Any, over: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    return {**base, **{k: _merge(base[k], v) if k in base else v for k, v in over.items()}}


def _newly_inherited(base: Any, over: Any, loc: Location) -> Iterator[Location]:
    """The options of ``base`` that stay where ``over`` changes the ``type``."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return
    if "type" in base and "type" in over and base["type"] != over["type"]:
        yield from ((*loc, k) for k in base if k not in over)
    for k in base.keys() & over.keys():
        yield from _newly_inherited(base[k], over[k], (*loc, k))


def override(source: Source, assignment: str) -> Source:
    """Apply one ``a.b.c=value`` of the command line. The value is read as YAML; the schema gives it its type."""
    key, equals, text = assignment.partition("=")
    key = key.strip()
    if not equals or not key:
        raise UserError(f"--set {assignment}: expected key=value, e.g. train.optim.lr=3e-4")
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError:
        raise UserError(f"--set {assignment}: the value is not valid YAML") from None
    parts = key.split(".")
    loc: Location = tuple(int(p) if p.isdigit() else p for p in parts)
    parents = [loc[:i] for i in range(1, len(loc))]
    inherited = {i for i in source.inherited if i[: len(loc)] != loc}
    if parts[-1] == "type":
        inherited |= {*_newly_inherited(_at(source.data, loc[:-1]), {"type": value}, loc[:-1])}
    return Source(
        _assign(source.data, parts, value, f"--set {key}"),
        {**{p: f"--set {key}" for p in parents}, **source.lines, loc: f"--set {key}"},
        frozenset(inherited),
    )


def _assign(data: Any, parts: list[str], value: Any, argument: str) -> Any:
    """A copy of ``data`` in which the value at the path ``parts`` is ``value``."""
    head, rest = parts[0], parts[1:]
    if isinstance(data, list):
        if not head.isdigit() or int(head) >= len(data):
            raise UserError(f"{argument}: {head!r} is not an index of that list; it has {len(data)} entries, from 0")
        i = int(head)
        return [*data[:i], _assign(data[i], rest, value, argument) if rest else value, *data[i + 1 :]]
    if isinstance(data, str):  # "flow: dis" is short for "flow: {type: dis}"
        data = {"type": data}
    old = data if isinstance(data, dict) else {}
    return {**old, head: _assign(old.get(head), rest, value, argument) if rest else value}


def _at(data: Any, loc: Location) -> Any:
    """What is at ``loc``; None where there is nothing."""
    for key in loc:
        if isinstance(data, list) and isinstance(key, int) and key < len(data):
            data = data[key]
        else:
            data = data.get(key) if isinstance(data, dict) else None
    return data


# --- check and write -----------------------------------------------------------------------------------------------


def check(source: Source, schema: type[Config], title: str) -> Config:
    """The typed options.

    Raises:
        UserError: lists all mistakes.
    """
    import_registered()
    data, inherited = source.data, set(source.inherited)
    while True:
        try:
            return schema.model_validate(data)
        except ValidationError as error:
            errors = error.errors(include_url=False)
        foreign = inherited & {e["loc"] for e in errors if e["type"] == "unknown_option"}
        if not foreign:
            raise UserError(_mistakes(errors, source, title))
        for loc in foreign:
            data = _without(data, loc)
        inherited -= foreign


def _without(data: Any, loc: Location) -> Any:
    """A copy of ``data`` without the option at ``loc``."""
    head, rest = loc[0], loc[1:]
    if isinstance(data, list):
        return [_without(v, rest) if i == head else v for i, v in enumerate(data)]
    return {k: _without(v, rest) if k == head else v for k, v in data.items() if k != head or rest}


def _mistakes(errors: Iterable[Any], source: Source, title: str) -> str:
    rows = [_mistake(e, source) for e in errors]
    count = f"{len(rows)} mistakes" if len(rows) > 1 else "a mistake"
    return "\n  ".join([f"{title} has {count}:", *rows])


def _mistake(error: Any, source: Source) -> str:
    loc: Location = error["loc"]
    path = ".".join(str(p) for p in loc) or "the file"
    value = error["input"]
    shown = isinstance(value, str | int | float) and error["type"] not in _WITHOUT_VALUE
    got = f" (got {value!r})" if shown else ""
    return f"{source.where(loc)}  {path}: {error['msg']}{got}".strip()


_WITHOUT_VALUE = {"unknown_option", "unknown_type", "missing", "no_type"}
"""Errors whose message is complete without the value."""


def to_yaml(config: Options) -> str:
    """The resolved options as YAML that loads to an equal object."""
    return yaml.safe_dump(dump(config), sort_keys=False, width=110)
