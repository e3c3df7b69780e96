"""YAML in, checked and frozen options out.

``load(path, overrides, TrainConfig)`` reads a YAML file with its ``_base_`` includes, applies ``key=value``
overrides and checks the whole against the schema. All mistakes are reported together, each with its file and
line and the nearest right name.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from keep.config.plugins import import_registered, load_plugin
from keep.config.registry import INHERITED, Options, dump
from keep.config.schema import RunOptions
from keep.utils.errors import UserError

Config = TypeVar("Config", bound=RunOptions)


# --- YAML --------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads ``3e-4`` as a number (YAML 1.1 wants ``3.0e-4``) and refuses a key given twice."""

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

Location = tuple[str | int, ...]


@dataclass
class Source:
    """Raw option data and where each value was written."""

    data: dict[str, Any]
    lines: dict[Location, str]

    def where(self, loc: Location) -> str:
        """The file and line of the deepest known part of ``loc``."""
        while loc and loc not in self.lines:
            loc = loc[:-1]
        return self.lines.get(loc, "")


def read_yaml(path: Path, _open: tuple[Path, ...] = ()) -> Source:
    """A YAML file with its ``_base_`` includes merged beneath it (paths relative to the file).

    A mapping is merged key by key. Where its ``type`` changes, the base's other options stay as far as the new class
    has them. ``plugins`` add up.
    """
    path = Path(path).expanduser()
    if path.resolve() in _open:
        raise UserError(f"{path}: includes itself through _base_")
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
    own = Source(data, {})
    _note_lines(node, (), path, own.lines)
    bases, plugins = (_paths(data, key, path) for key in ("_base_", "plugins"))
    data.pop("_base_", None)
    merged = Source({}, {})
    for base in bases:
        merged = merge(merged, read_yaml(base, (*_open, path.resolve())))
    plugins = [*merged.data.get("plugins", []), *(str(p.resolve()) for p in plugins)]
    merged = merge(merged, own)
    return Source({**merged.data, "plugins": plugins}, merged.lines) if plugins else merged


def _paths(data: dict[str, Any], key: str, path: Path) -> list[Path]:
    """The files that ``key`` names, one or a list, relative to the YAML file at ``path``."""
    given = data.get(key) or []
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, list) or not all(isinstance(p, str) for p in given):
        raise UserError(f"{path}: {key}: expected a file name or a list of them")
    return [path.parent / Path(p).expanduser() for p in given]


def _note_lines(node: Any, loc: Location, path: Path, lines: dict[Location, str]) -> None:
    lines.setdefault(loc, f"{path}:{node.start_mark.line + 1}" if node else str(path))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            lines[(*loc, key.value)] = f"{path}:{key.start_mark.line + 1}"
            _note_lines(value, (*loc, key.value), path, lines)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            _note_lines(value, (*loc, i), path, lines)


def merge(base: Source, over: Source) -> Source:
    """``over`` laid upon ``base``."""
    return Source(_merge(base.data, over.data), {**base.lines, **over.lines})


def _merge(base: Any, over: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    merged = {**base, **{k: _merge(base[k], v) if k in base else v for k, v in over.items()}}
    kept = base.get(INHERITED, [])
    if "type" in over and "type" in base and over["type"] != base["type"]:
        kept = [k for k in base if k not in ("type", INHERITED)]
    kept = [k for k in kept if k not in over]
    return {**merged, INHERITED: kept} if kept else {k: v for k, v in merged.items() if k != INHERITED}


def override(source: Source, assignment: str) -> Source:
    """One ``a.b.c=value`` of the command line; the value is read as YAML, then typed by the schema."""
    key, equals, text = assignment.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {assignment}: expected key=value, e.g. train.optim.lr=3e-4")
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError:
        raise UserError(f"--set {assignment}: the value is not valid YAML") from None
    parts = key.strip().split(".")
    where: Location = tuple(int(p) if p.isdigit() else p for p in parts)
    told = f"--set {key.strip()}"
    new = {where[: i + 1]: told for i in range(len(where)) if where[: i + 1] not in source.lines or i == len(where) - 1}
    return Source(_assign(source.data, parts, value, told), {**source.lines, **new})


def _assign(data: Any, parts: list[str], value: Any, told: str) -> Any:
    """A copy of ``data`` in which the value at the path ``parts`` is ``value``."""
    head, rest = parts[0], parts[1:]
    if isinstance(data, list):
        if not head.isdigit() or int(head) >= len(data):
            raise UserError(f"{told}: {head!r} is not a place in that list, which has {len(data)} entries, 0 the first")
        i = int(head)
        return [*data[:i], _assign(data[i], rest, value, told) if rest else value, *data[i + 1 :]]
    if isinstance(data, str):  # "flow: dis" is short for "flow: {type: dis}"
        data = {"type": data}
    old = data if isinstance(data, dict) else {}
    new = {head: _assign(old.get(head), rest, value, told) if rest else value}
    return _merge(old, new) if head == "type" else {**old, **new}


# --- the whole way from a file to a checked object ------------------------------------------------------------


def load(path: Path | str, overrides: Iterable[str], schema: type[Config]) -> Config:
    """Read, override and check an options file.

    Raises:
        UserError: with every mistake on a line of its own: file:line, the option's path, what is right.
    """
    source = read_yaml(Path(path))
    for assignment in overrides:
        source = override(source, assignment)
    plugins = source.data.get("plugins")
    for plugin in plugins if isinstance(plugins, list) else ():
        load_plugin(Path(str(plugin)))
    return check(source, schema, str(path))


def check(source: Source, schema: type[Config], title: str) -> Config:
    """The typed object, or a :class:`UserError` that names all mistakes."""
    import_registered()
    try:
        return schema.model_validate(source.data)
    except ValidationError as error:
        rows = [_mistake(e, source) for e in error.errors(include_url=False)]
    count = f"{len(rows)} mistakes" if len(rows) > 1 else "a mistake"
    raise UserError("\n  ".join([f"{title} has {count}:", *rows]))


def _mistake(error: Any, source: Source) -> str:
    loc: Location = error["loc"]
    path = ".".join(str(p) for p in loc) or "the file"
    shown = error["input"]
    got = f" (got {shown!r})" if isinstance(shown, str | int | float) and error["type"] not in _SELF_TOLD else ""
    return f"{source.where(loc)}  {path}: {error['msg']}{got}".strip()


_SELF_TOLD = {"unknown_option", "unknown_type", "missing", "no_type"}


def to_yaml(config: Options) -> str:
    """The resolved options as YAML that loads to an equal object."""
    return yaml.safe_dump(dump(config), sort_keys=False, width=110)
