"""From YAML to checked, frozen options: read, merge, override, check.

``load(path, overrides, TrainConfig)`` reads a YAML file and the ``_base_`` files that it includes, applies
``key=value`` overrides, and checks the result against the schema. All mistakes are reported together, each with its
file and line and the nearest known name.
"""

import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml

from keep.config import shipped
from keep.config.checking import check
from keep.config.merging import Source, at, merge, override
from keep.config.plugins import load_plugin
from keep.config.registry import Options, dump
from keep.config.schema import RunOptions
from keep.config.yaml_text import MAX_BYTES, Location, YamlError, parse_yaml, plain_value
from keep.utils.errors import UserError, shortened
from keep.utils.paths import expand

Config = TypeVar("Config", bound=RunOptions)

MAX_CHAIN = 16
"""The most files of which each is the ``_base_`` of the one before."""
MAX_FILES = 100
"""The most files that an options file reads in all."""


def load(path: Path | str, overrides: Iterable[str], schema: type[Config]) -> Config:
    """Read, override and check an options file.

    Raises:
        UserError: lists every mistake on a separate line: file:line, the option's path, the correction.
    """
    source = read_yaml(Path(path))
    for assignment in overrides:
        source = override(source, assignment)
    plugins = source.data.get("plugins")
    for i, plugin in enumerate(plugins if isinstance(plugins, list) else ()):
        load_plugin(expand(str(plugin)), source.where(("plugins", i)))
    return check(source, schema, str(path))


def read_yaml(path: Path, including: tuple[Path, ...] = (), counter: "itertools.count[int] | None" = None) -> Source:
    """A YAML file, merged over the files that its ``_base_`` names (relative to the file, or shipped).

    A mapping is merged key by key. Where its ``type`` changes, the base's other options stay as far as the new class
    has them. ``plugins`` add up. A mapping below the top may have a ``_base_``, too; ``FILE#a.b`` includes only what
    the file has at ``a.b``.

    Args:
        path: the file, or the name of one that the package ships (:mod:`keep.config.shipped`).
        including: the files that include this one, directly or not.
        counter: counts the files that the first of these reads.

    Raises:
        UserError: no such file, not valid YAML, a file that includes itself, or too many files.
    """
    path = shipped.find(expand(path), path)
    counter = counter or itertools.count(1)
    including = (*including, Path(os.path.realpath(path)))  # Path.resolve raises for links in a circle
    own = _parse(path)
    source = Source({})
    for loc, given in _bases(own.data, ()):
        where = own.where((*loc, "_base_"))
        for base in _file_names(given, "_base_", where):
            name, _, part = base.partition("#")
            file = shipped.find(path.parent / name, name)
            _check_base(file, name, including, next(counter), f"{where}: _base_: {shortened(str(file), 400)[1:-1]}")
            included = read_yaml(file, including, counter)
            source = merge(source, _part(included, part, f"{where}: _base_: {file}").below(loc))
    names = _file_names(own.data.get("plugins"), "plugins", own.where(("plugins",)))
    plugins = [path.parent / name for name in names]
    return _with_plugins(source, Source(_without_bases(own.data), own.lines, own.texts), plugins)


def _check_base(file: Path, name: str, including: tuple[Path, ...], number: int, title: str) -> None:
    """Raise UserError if a file cannot be included."""
    if not os.path.exists(file):  # noqa: PTH110, Path.exists raises for a name that is too long
        raise UserError(f"{title}: there is no such file{shipped.near(name)}")
    if Path(os.path.realpath(file)) in including:
        raise UserError(f"{title} includes itself")
    if len(including) >= MAX_CHAIN or number > MAX_FILES:
        raise UserError(f"{title}: too many files: at most {MAX_CHAIN} in a chain and {MAX_FILES} in all")


def _parse(path: Path) -> Source:
    """One file, without what it includes."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UserError(f"{path}: an options file has at most {MAX_BYTES // 1024} KiB")
        parsed = parse_yaml(content.decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        reason = f"there is no such file{shipped.near(path)}" if isinstance(error, FileNotFoundError) else reason
        raise UserError(f"cannot read the options file {path}: {reason}") from None
    except YamlError as error:
        raise UserError(f"{path}:{error.line}: {error}" if error.line else f"{path}: {error}") from None
    data = {} if parsed.data is None else parsed.data
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected a mapping of options at the top")
    return Source(data, {loc: f"{path}:{line}" for loc, line in parsed.lines.items()}, parsed.texts)


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


def _part(source: Source, part: str, title: str) -> Source:
    """What ``source`` has at ``part``, ``a.b``; all of it where ``part`` is empty."""
    loc: Location = tuple(part.split(".")) if part else ()
    if not isinstance(at(source.data, loc), dict):
        raise UserError(f"{title} has no mapping {shortened(part)[1:-1]}")
    return source.part(loc)


def _with_plugins(base: Source, own: Source, plugins: list[Path]) -> Source:
    """``own`` laid upon ``base``, with the plugins of both; those of ``own`` are ``plugins``."""
    merged = merge(base, own)
    if not plugins:
        return merged
    before = [str(p) for p in at(base.data, ("plugins",)) or ()]
    lines = {("plugins", i): base.where(("plugins", i)) for i in range(len(before))}
    for i in range(len(plugins)):
        lines["plugins", len(before) + i] = own.where(("plugins", i))
    data = {**merged.data, "plugins": [*before, *(str(p.resolve()) for p in plugins)]}
    return Source(data, {**merged.lines, **lines}, merged.texts, merged.inherited)


def _file_names(given: Any, key: str, where: str) -> list[str]:
    """The files that the value of ``key`` names, one or a list."""
    given = given or []
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, list) or not all(isinstance(p, str) and p.isprintable() for p in given):
        raise UserError(f"{where}: {key}: expected a file name or a list of them")
    try:
        return [str(expand(p)) for p in given]
    except UserError as error:
        raise UserError(f"{where}: {key}: {error}") from None


class _Dumper(yaml.SafeDumper):
    """Puts text in quotes where this package's reader would take it for something else, too."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, None if isinstance(plain_value(text), str) else "'")


_Dumper.add_representer(str, _represent_text)


def to_yaml(config: Options) -> str:
    """The resolved options as YAML that loads to an equal object, but for credentials of addresses."""
    return yaml.dump(dump(config), Dumper=_Dumper, sort_keys=False, width=110)
