"""One YAML text to plain data: every value with its line and, where it is a number, its text as written.

Plain words follow YAML 1.2: ``true`` and ``false`` are booleans, ``yes`` and ``on`` are text, ``0010`` is ten and
``12:30`` is text. Dates are text. A mapping or list that is written too deep, or an alias that stands for too much, is
refused while the text is read, so that no file takes long or fills the memory.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml
from yaml.composer import Composer
from yaml.error import Mark
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from keep.utils.errors import shortened

MAX_BYTES = 256 * 1024
"""The largest options file."""
MAX_DEPTH = 32
"""The most mappings and lists inside each other."""
MAX_VALUES = 20_000
"""The most values in a file, with those that aliases repeat."""

Location = tuple[str | int, ...]
"""The keys and list indices that lead to an option."""

_STANDARD_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "seq", "map")}
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?\d+(_\d+)*", re.ASCII)
_BASED_INTEGER = re.compile(r"0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(\d[\d_]*(\.\d*)?|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_SPECIAL_FLOAT = re.compile(r"([-+]?)\.(inf|Inf|INF|nan|NaN|NAN)")
_LONGEST_NUMBER = 40
"""Characters of a number; a longer one is text, which no option for numbers takes."""
_FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""Characters that can be written with escapes, and that no name, path or message may have."""


class YamlError(ValueError):
    """The text is not YAML as options files use it. ``line`` counts from 1; 0: unknown."""

    def __init__(self, reason: str, line: int = 0) -> None:
        super().__init__(reason)
        self.line = line


@dataclass(frozen=True)
class Parsed:
    """A YAML text.

    Attributes:
        data: mappings, lists, strings, numbers, booleans, null.
        lines: location → the line, from 1, that sets its value. A value that an alias or ``<<`` repeats has the line
            where it is written.
        texts: location → the text of a number, boolean or null as written.
    """

    data: Any
    lines: dict[Location, int] = field(default_factory=dict)
    texts: dict[Location, str] = field(default_factory=dict)


def parse_yaml(text: str) -> Parsed:
    """The single document in ``text``; an empty one is null.

    Raises:
        YamlError: not valid YAML, a repeated key, a key that is not a plain word, an explicit tag, a character that
            cannot be printed, or a limit exceeded.
    """
    if found := _FORBIDDEN.search(text):
        raise YamlError(f"not valid YAML: the character U+{ord(found[0]):04X}", text.count("\n", 0, found.start()) + 1)
    composer = _Composer(text)
    try:
        node = composer.get_single_node()
    except YamlError:
        raise
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = str(getattr(error, "problem", None) or error).partition("\n")[0]
        raise YamlError(f"not valid YAML: {reason}", mark.line + 1 if mark else 0) from None
    except (ValueError, OverflowError):
        raise YamlError("not valid YAML: an escape of a character that does not exist", composer.line + 1) from None
    if node is None:
        return Parsed(None, {(): 1}, {(): ""})
    parsed = Parsed(None, {(): node.start_mark.line + 1})
    return Parsed(_build(node, (), parsed), parsed.lines, parsed.texts)


class _Composer(Reader, Scanner, Parser, Composer, BaseResolver):
    """Reads nodes; refuses what nests too deep, repeats too much or contains itself."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)
        self._open: list[str] = []  # the anchors around the present node; "" where it has none
        self._count = 0
        self._sizes: dict[str, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        anchor = event.anchor or ""
        if isinstance(event, yaml.AliasEvent):
            if anchor in self._open:
                _refuse(f"the alias *{anchor} is inside what it stands for", event.start_mark)
            self._add(self._sizes.get(anchor, 0), event.start_mark)
            return super().compose_node(parent, index)
        before = self._count
        self._add(1, event.start_mark)
        if len(self._open) > MAX_DEPTH:
            _refuse(f"more than {MAX_DEPTH} mappings and lists inside each other", event.start_mark)
        self._open.append(anchor)
        node = super().compose_node(parent, index)
        self._open.pop()
        self._sizes[anchor] = self._count - before
        return node

    def _add(self, values: int, mark: Mark) -> None:
        self._count += values
        if self._count > MAX_VALUES:
            _refuse(f"more than {MAX_VALUES} values, with those that aliases repeat", mark)


def _build(node: Any, loc: Location, parsed: Parsed) -> Any:
    """The data of a node; adds its lines and texts to ``parsed``."""
    if len(loc) > MAX_DEPTH:  # aliases in aliases
        _refuse(f"more than {MAX_DEPTH} mappings and lists inside each other", node.start_mark)
    _check_tag(node)
    if isinstance(node, yaml.MappingNode):
        data = {}
        for key, key_node, value in _items(node):
            where = (*loc, key)
            # A value before its key is an alias: the line of its anchor sets it.
            first = min(key_node.start_mark, value.start_mark, key=lambda mark: mark.index)
            parsed.lines[where] = first.line + 1
            data[key] = _build(value, where, parsed)
        return data
    if isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            parsed.lines[(*loc, i)] = value.start_mark.line + 1
        return [_build(value, (*loc, i), parsed) for i, value in enumerate(node.value)]
    return _scalar(node, loc, parsed)


def _items(node: yaml.MappingNode) -> Iterator[tuple[str, Any, Any]]:
    """The keys of a mapping, their nodes and values; those that ``<<`` merges first, where no key replaces them."""
    own: dict[str, tuple[Any, Any]] = {}
    merged: dict[str, tuple[Any, Any]] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            _refuse("a key must be a plain word", key.start_mark)
        _check_tag(key)
        _check_characters(key)
        if key.value == "<<" and key.style is None:
            for key_name, key_node, entry in _merged_items(value):
                merged.setdefault(key_name, (key_node, entry))
        elif key.value in own:
            _refuse(f"the key {shortened(key.value)} is given twice", key.start_mark)
        else:
            own[key.value] = (key, value)
    for name, (key, value) in {**merged, **own}.items():
        yield name, key, value


def _merged_items(value: Any) -> Iterator[tuple[str, Any, Any]]:
    """The items of the mapping, or of the list of mappings, that stands at ``<<``."""
    for mapping in value.value if isinstance(value, yaml.SequenceNode) else [value]:
        if not isinstance(mapping, yaml.MappingNode):
            _refuse("<< needs a mapping or a list of mappings", mapping.start_mark)
        yield from _items(mapping)


def _scalar(node: yaml.ScalarNode, loc: Location, parsed: Parsed) -> Any:
    """A number, boolean or null if the node is a plain word that says so, otherwise text."""
    _check_characters(node)
    text: str = node.value
    value = plain_value(text) if node.style is None else text
    if not isinstance(value, str):
        parsed.texts[loc] = text
    return value


def plain_value(text: str) -> Any:
    """What a plain word stands for: null, a boolean, an integer, a number, or the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > _LONGEST_NUMBER:
        return text
    if _INTEGER.fullmatch(text):
        return int(text)
    if _BASED_INTEGER.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text.replace("_", ""))
    if special := _SPECIAL_FLOAT.fullmatch(text):
        return float(special[1] + special[2])
    return text


def _check_tag(node: Any) -> None:
    if node.tag not in _STANDARD_TAGS:
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        _refuse(f"the tag {shortened(tag)[1:-1]} is not supported: remove it", node.start_mark)


def _check_characters(node: yaml.ScalarNode) -> None:
    if found := _FORBIDDEN.search(node.value):
        _refuse(f"the character U+{ord(found[0]):04X} is not allowed in a value", node.start_mark)


def _refuse(reason: str, mark: Mark) -> NoReturn:
    raise YamlError(reason, mark.line + 1)
