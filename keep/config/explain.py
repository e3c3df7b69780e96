"""``--explain`` and ``--schema``: every option with its type, default (or the file's value) and meaning."""

import textwrap
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import create_model
from pydantic.fields import FieldInfo

from keep.config.plugins import import_registered
from keep.config.registry import REGISTRIES, Options, Registry, Spec, dump, schema, summary
from keep.config.schema import TestConfig, TrainConfig


def explain(cls: type[Options], config: Options | None = None) -> str:
    """The options of ``cls``.

    With ``config``: the values of that file, and the options of the classes it names. Without: the defaults, and the
    options of every registered class.
    """
    import_registered()
    parts = list(_rows(cls, config, ""))
    if config is None:
        for registry in REGISTRIES:
            for name in registry.names():
                registered = registry[name]
                parts.append(f"\n{registry.kind} {name}: {summary(registered)}\n")
                parts.extend(_rows(schema(registered), None, "  "))
    return "\n".join(parts)


def _rows(cls: type[Options], values: Any, prefix: str) -> Iterator[str]:
    for name, field in cls.model_fields.items():
        value = None if values is None else values.get(name) if isinstance(values, dict) else getattr(values, name)
        yield _row(prefix + name, field, value, values is not None)
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Options):
            yield from _rows(inner, value, f"{prefix}{name}.")
        else:
            yield from _spec_rows(value, f"{prefix}{name}.")


def _spec_rows(value: Any, prefix: str) -> Iterator[str]:
    if isinstance(value, Spec):
        yield from _rows(schema(value.cls), dict(value.options), prefix)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _spec_rows(item, f"{prefix}{key}.")
    elif isinstance(value, tuple | list):
        for i, item in enumerate(value):
            yield from _spec_rows(item, f"{prefix}{i}.")


def _row(path: str, field: FieldInfo, value: Any, known: bool) -> str:
    kind = type_name(field.annotation, field.metadata)
    if known:
        state = f"= {_short(value)}"
    elif field.is_required():
        state = "required"
    else:
        default = field.get_default(call_default_factory=True)
        state = _short(default) if isinstance(default, Options) else f"default {_short(default)}"
    meaning = textwrap.fill(
        field.description or "", 110, initial_indent=" " * 6, subsequent_indent=" " * 6, break_long_words=False
    )
    return f"{path}  ({kind})  {state}" + (f"\n{meaning}" if meaning else "")


def _short(value: Any) -> str:
    if isinstance(value, Spec):
        return value.type
    if isinstance(value, Options):
        return "see below"
    if isinstance(value, tuple | list) and any(isinstance(v, Spec) for v in value):
        return "[" + ", ".join(_short(v) for v in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_short(v)}" for k, v in value.items()) + "}"
    plain = dump(value)
    return "null" if plain is None else str(plain)


def type_name(annotation: Any, metadata: Any = ()) -> str:
    """An annotation in the words of YAML: ``int``, ``list of int``, ``arch``, ``a | b``."""
    for item in metadata:
        if isinstance(item, Registry):
            return item.kind
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_name(args[0], args[1:])
    if origin in (Union, types.UnionType):
        return " | ".join(type_name(a) for a in args)
    if origin is Literal:
        return " | ".join(map(str, args))
    if origin is tuple:
        return f"list of {type_name(args[0])}" if args[-1] is ... else f"[{', '.join(type_name(a) for a in args)}]"
    if origin is list:
        return f"list of {type_name(args[0])}"
    if origin is dict:
        return f"mapping of names to {type_name(args[1])}"
    if annotation is type(None):
        return "null"
    return {"Path": "path", "str": "text"}.get(
        getattr(annotation, "__name__", ""), getattr(annotation, "__name__", "any")
    )


def json_schema() -> dict[str, Any]:
    """JSON schema of the YAML files for training and test, for completion and checks in editors."""
    import_registered()
    both = create_model("keep options", __base__=Options, train=(TrainConfig, ...), test=(TestConfig, ...))
    definitions = both.model_json_schema()["$defs"] | {r.kind: r.json_schema() for r in REGISTRIES}
    parts = [definitions.pop(c.__name__) for c in (TrainConfig, TestConfig)]
    definitions["_base_"] = {
        "description": "Options files that this mapping extends: FILE or FILE#a.b; paths relative to this file.",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    }
    schema = {"title": "KEEP options", "anyOf": parts, "$defs": definitions}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_finish(schema)}


def _finish(node: Any) -> Any:
    """Turn registries into references, and keep only ``type`` required: the rest may come from a ``_base_`` file."""
    if isinstance(node, list):
        return [_finish(v) for v in node]
    if not isinstance(node, Mapping):
        return node
    if "x-registry" in node:
        rest = {k: v for k, v in node.items() if k != "x-registry"}
        return {**rest, "$ref": "#/$defs/" + node["x-registry"].replace(" ", "%20")}
    if node.get("additionalProperties") is False:  # the options of a class
        node = {**node, "properties": {**node.get("properties", {}), "_base_": {"$ref": "#/$defs/_base_"}}}
    return {
        k: [r for r in v if r == "type"] if k == "required" and isinstance(v, list) else _finish(v)
        for k, v in node.items()
    }
