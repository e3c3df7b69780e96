"""Registries map names to classes; the signature of a class's ``__init__`` is the schema of its options.

A registry is also a type annotation. A parameter annotated ``Annotated[Any, ARCHS]`` takes, in YAML,
a mapping ``{type: NAME, option: value, …}`` (or just ``NAME``). It becomes a :class:`Spec`: checked at once, built
later.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, TypeVar, get_type_hints

import torch.nn as nn
from pydantic import BaseModel, ConfigDict, PydanticUserError, ValidationError, create_model, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from keep.utils.credentials import without_credentials
from keep.utils.errors import UserError, nearest, placed, shortened

C = TypeVar("C", bound=type)


class Options(BaseModel):
    """Base of every option object: frozen; an unknown key is an error that names the nearest known one."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
    )

    @model_validator(mode="wrap")
    @classmethod
    def _explain_errors(cls, data: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            options = handler(data)
        except ValidationError as error:
            raise ValidationError.from_exception_data(
                cls.__name__, [_restate(e, cls.model_fields) for e in error.errors(include_url=False)]
            ) from None
        given = data if isinstance(data, Mapping) else {}
        if wrong := [loc for k, v in given.items() for loc in _booleans(v, getattr(options, k), (k,))]:
            kind = _error("bool_for_number", "expected a number, not true or false")
            raise ValidationError.from_exception_data(
                cls.__name__, [InitErrorDetails(type=kind, loc=loc, input=None) for loc in wrong]
            )
        return options


def _booleans(given: Any, made: Any, loc: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    """The places below ``loc`` where a boolean was given and became a number: pydantic takes true as 1."""
    if isinstance(given, bool):
        if not isinstance(made, bool):
            yield loc
    elif isinstance(given, Mapping) and isinstance(made, Mapping):
        for key in given.keys() & made.keys():
            yield from _booleans(given[key], made[key], (*loc, key))
    elif isinstance(given, list | tuple) and isinstance(made, list | tuple):
        for i, (a, b) in enumerate(zip(given, made, strict=False)):
            yield from _booleans(a, b, (*loc, i))


def _restate(error: Any, fields: Mapping[str, FieldInfo]) -> InitErrorDetails:
    """The same error, with a clearer message where pydantic's does not help."""
    kind, message, loc = error["type"], error["msg"], error["loc"]
    if kind == "extra_forbidden" and len(loc) == 1:
        known = ", ".join(fields) or "none"
        kind, message = "unknown_option", "unknown option" + (nearest(loc[0], fields) or f"; known: {known}")
    elif kind == "missing":
        message = "this option is required"
    elif kind == "model_type":
        message = "expected a mapping of options"
    elif kind == "tuple_type":
        message = "expected a list, e.g. [1, 2]"
    elif kind == "path_type":
        message = "expected a path"
    elif kind == "string_pattern_mismatch":
        message = "expected letters, digits and . _ + -, a letter or digit first"
    message = message.removeprefix("Value error, ")
    return InitErrorDetails(type=_error(kind, message), loc=loc, input=error["input"])


def mistake(message: str, location: tuple[str, ...], value: Any, kind: str = "value_error") -> ValidationError:
    """The error of a check of our own, reported at the option at ``location``."""
    details = InitErrorDetails(type=_error(kind, message), loc=location, input=value)
    return ValidationError.from_exception_data("options", [details])


def _error(kind: str, message: str) -> PydanticCustomError:
    # The text is an argument of the template: braces in it are no placeholders.
    return PydanticCustomError(kind, "{text}", {"text": message})  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class Spec:
    """A registered class and its checked options, from a ``{type: …}`` mapping of the YAML."""

    type: str
    cls: Any
    options: Mapping[str, Any]

    def build(self, **extra: Any) -> Any:
        """The object. Specs among its options are built first; ``extra`` overrides options.

        A class that builds specs itself names these options in ``built_by_itself``.
        """
        unbuilt = getattr(self.cls, "built_by_itself", ())
        own = {k: v for k, v in self.options.items() if k not in extra}
        options = {k: v if k in unbuilt else build_at(k, v) for k, v in own.items()} | extra
        for name, kind in dataclass_parameters(self.cls).items():
            options[name] = kind(**{f.name: options.pop(f.name) for f in fields(kind)})
        return self.cls(**options)

    def dump(self) -> dict[str, Any]:
        """Plain data that reads back as an equal spec, but for credentials of addresses."""
        return {"type": self.type, **{k: dump(v) for k, v in self.options.items()}}


def build(value: Any) -> Any:
    """``value`` with every :class:`Spec` inside it built."""
    if isinstance(value, Spec):
        return value.build()
    if isinstance(value, list | tuple):
        return type(value)(build_at(i, v) for i, v in enumerate(value))
    if isinstance(value, Mapping):
        return {k: build_at(k, v) for k, v in value.items()}
    return value


def build_at(name: str | int, value: Any) -> Any:
    """:func:`build`; a mistake in an option names it with its place, of which ``name`` is the first part."""
    with placed(name):
        return build(value)


def dump(value: Any) -> Any:
    """``value`` as plain YAML data: mappings, lists, strings, numbers, booleans, null.

    It is what gets stored and shown, so addresses lose their user names, passwords and tokens; objects are built from
    the options themselves.
    """
    if isinstance(value, Spec):
        return value.dump()
    if isinstance(value, BaseModel):
        return {k: dump(getattr(value, k)) for k in type(value).model_fields}
    if isinstance(value, list | tuple):
        return [dump(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): dump(v) for k, v in value.items()}
    return value if value is None or isinstance(value, bool | int | float) else without_credentials(str(value))


class Registry:
    """A set of named classes of one kind.

    Args:
        kind: a word for the classes in messages, e.g. ``"arch"``.
        default: the class of a mapping without ``type``; by default such a mapping is an error.
    """

    def __init__(self, kind: str, default: str | None = None) -> None:
        self.kind, self.default = kind, default
        self._classes: dict[str, type] = {}

    def register(self, name: str | None = None) -> Callable[[C], C]:
        """Class decorator; the registered name is ``name`` or the class's own.

        Raises:
            UserError: the name is taken, or the decorator is written without its parentheses.
        """
        if name is not None and not isinstance(name, str):
            raise UserError(
                f"the {self.kind} {getattr(name, '__name__', name)}: write the decorator with parentheses: .register()"
            )

        def add(cls: C) -> C:
            if not isinstance(cls, type):
                raise UserError(f"{cls!r} is no class: only a class can be registered as {self.kind}")
            key = name or cls.__name__
            if key in self._classes:
                raise UserError(
                    f"the {self.kind} {key!r} exists twice, in {self._classes[key].__module__} and {cls.__module__}: "
                    "rename one of them"
                )
            self._classes[key] = cls
            return cls

        return add

    def names(self) -> list[str]:
        return sorted(self._classes)

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def __getitem__(self, name: str) -> type:
        if name not in self._classes:
            raise UserError(self._unknown(name))
        return self._classes[name]

    def _unknown(self, name: object) -> str:
        hint = nearest(name, self._classes) or f"; known: {', '.join(self.names()) or 'none'}"
        return f"no {self.kind} is named {shortened(name)}{hint}"

    def spec(self, value: Any) -> Spec:
        """``{type: NAME, **options}``, ``NAME`` or a :class:`Spec`, checked.

        Raises:
            pydantic.ValidationError: for an unknown name, or for all wrong options at once.
        """
        if isinstance(value, Spec):
            return value
        if isinstance(value, str):
            value = {"type": value}
        if self.default is not None and isinstance(value, Mapping):
            value = {"type": self.default, **value}
        if not isinstance(value, Mapping) or "type" not in value:
            names = ", ".join(self.names())
            raise _error("no_type", f"expected a {self.kind}, as a mapping with 'type: NAME'; known names: {names}")
        name = value["type"]
        if not isinstance(name, str):
            raise mistake(f"expected one name; known: {', '.join(self.names())}", ("type",), name, "string_type")
        if name not in self._classes:
            raise mistake(self._unknown(name), ("type",), name, "unknown_type")
        cls = self._classes[name]
        options = schema(cls).model_validate({k: v for k, v in value.items() if k != "type"})
        return Spec(name, cls, {k: getattr(options, k) for k in type(options).model_fields})

    # pydantic calls these two for a registry in an ``Annotated[…]``.
    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.spec, serialization=core_schema.plain_serializer_function_ser_schema(dump)
        )

    def __get_pydantic_json_schema__(self, source: Any, handler: Any) -> dict[str, Any]:
        return {"x-registry": self.kind}  # explain.json_schema turns it into a reference

    def json_schema(self) -> dict[str, Any]:
        """The values of this kind: a name, a mapping for one of the classes, or a mapping without ``type``, where a
        ``_base_`` file names the class."""
        typeless = {"type": "object", "not": {"required": ["type"]}}
        return {"anyOf": [{"enum": self.names()}, *map(self._class_schema, self.names()), typeless]}

    def _class_schema(self, name: str) -> dict[str, Any]:
        cls = self._classes[name]
        table = schema(cls).model_json_schema()
        table["properties"] = {"type": {"const": name}, **table.get("properties", {})}
        return {**table, "title": name, "description": summary(cls), "required": ["type"]}


@cache
def schema(cls: type) -> type[Options]:
    """The option schema of a registered class: the ``__init__`` parameters with their types, defaults and meanings.

    ``**options`` stands for the parameters of the base class; ``__init__`` passes them on to it. A parameter whose type
    is a dataclass stands for the fields of the dataclass, so the options stay one flat list.
    """
    if cls.__init__ in (object.__init__, nn.Module.__init__):  # not defined by the class: no options
        return create_model(cls.__name__, __base__=Options)
    try:
        hints = get_type_hints(cls.__init__, include_extras=True)
    except (NameError, TypeError) as error:
        raise UserError(f"{cls.__module__}: {cls.__name__}.__init__: the type of a parameter: {error}") from None
    meanings = argument_docs(cls)
    found: dict[str, Any] = {}
    for name, parameter in list(inspect.signature(cls.__init__).parameters.items())[1:]:
        if parameter.kind == parameter.VAR_KEYWORD and cls.__base__ not in (None, object, nn.Module):
            inherited = schema(cls.__base__).model_fields
            found |= {k: (field.rebuild_annotation(), field) for k, field in inherited.items() if k not in found}
            continue
        if is_dataclass(hints.get(name)):
            found |= {k: (field.rebuild_annotation(), field) for k, field in schema(hints[name]).model_fields.items()}
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or name not in hints:
            raise UserError(f"{cls.__name__}.__init__: parameter {name!r} needs a type (no *args or **kwargs)")
        default = ... if parameter.default is parameter.empty else parameter.default
        found[name] = (hints[name], FieldInfo(default=default, description=meanings.get(name)))
    try:
        return create_model(cls.__name__, __base__=Options, **found)
    except (PydanticUserError, NameError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{cls.__name__}.__init__: its parameters cannot be options of a YAML file: {reason}") from None


@cache
def dataclass_parameters(cls: type) -> dict[str, Any]:
    """Parameter → dataclass, for the ``__init__`` parameters of a class whose type is a dataclass.

    Those of the base class are included where ``__init__`` passes ``**options`` on to it.
    """
    own = {name: hint for name, hint in get_type_hints(cls.__init__).items() if is_dataclass(hint)}
    passes_on = any(p.kind == p.VAR_KEYWORD for p in inspect.signature(cls.__init__).parameters.values())
    inherited = dataclass_parameters(cls.__base__) if passes_on and cls.__base__ not in (None, object) else {}
    return {**inherited, **own}


def argument_docs(cls: type) -> dict[str, str]:
    """Parameter name → meaning, from the ``Args:`` section in the docstring of the class or its ``__init__``.

    Of a class that inherits its ``__init__``, the docstring of the class that defines it counts too.
    """
    found: dict[str, str] = {}
    owner = next(c for c in cls.__mro__ if "__init__" in vars(c))
    classes = [c.__doc__ and inspect.cleandoc(c.__doc__) for c in dict.fromkeys((owner, cls)) if c is not object]
    for doc in (inspect.getdoc(cls.__init__), *classes):
        match = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", doc or "", re.MULTILINE)
        if match:
            for name, text in re.findall(r"^ {4}(\w+): ((?:.+)(?:\n {5,}.+)*)", match[1], re.MULTILINE):
                found[name] = " ".join(text.split())
    return found


def summary(cls: type) -> str:
    """The first line of the class's docstring."""
    return (inspect.getdoc(cls) or "").partition("\n")[0]


ARCHS = Registry("arch")
MODELS = Registry("model")
DATASETS = Registry("dataset")
DEGRADATIONS = Registry("degradation step")
CODECS = Registry("codec")
LOSSES = Registry("loss")
METRICS = Registry("metric")
FLOWS = Registry("flow estimator")
SCHEDULES = Registry("schedule")
OPTIMIZERS = Registry("optimizer", default="Adam")
BASELINES = Registry("baseline")
DETECTORS = Registry("face detector")
IDENTITIES = Registry("identity network")
LANDMARKS = Registry("landmark network")
TRACKERS = Registry("tracker")
REGISTRIES = (
    MODELS, ARCHS, FLOWS, LOSSES, DATASETS, DEGRADATIONS, CODECS, METRICS, SCHEDULES, OPTIMIZERS, BASELINES,
    DETECTORS, IDENTITIES, LANDMARKS, TRACKERS,
)  # fmt: skip

# Any: the network may be a user's own. The docstring of each recipe (``net:``) lists what the network must have.
Arch = Annotated[Any, ARCHS]
Flow = Annotated[Any, FLOWS]
Loss = Annotated[Any, LOSSES]
