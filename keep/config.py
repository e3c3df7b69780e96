"""Every option, typed: YAML in, frozen objects out.

``load(path, overrides, TrainConfig)`` reads a YAML file with its ``_base_`` includes, applies ``key=value``
overrides and checks the whole against the schema. All mistakes are reported together, each with its file and
line and the nearest right name. Options of registered classes (archs, models, losses, …) are the parameters
of their ``__init__``; see :mod:`keep.registry`.
"""

import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, create_model

from keep.errors import UserError
from keep.logger import WandbOptions
from keep.profile import ProfileOptions
from keep.registry import BASELINES, DATASETS, INHERITED, METRICS, MODELS, REGISTRIES, SCHEDULES, Options, dump

Dataset = Annotated[Any, DATASETS]
Metric = Annotated[Any, METRICS]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class OptimOptions(Options):
    type: Literal["Adam", "AdamW"] = "Adam"
    """Optimizer."""
    lr: PositiveFloat = 2e-4
    """Learning rate before the schedule."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    """Adam's running-average coefficients."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """L2 penalty (Adam) or decoupled decay (AdamW)."""
    fused: bool = False
    """One kernel for all weights: less launching on a GPU. Results differ in rounding alone."""


class TrainOptions(Options):
    iters: PositiveInt
    """Number of optimizer steps."""
    optim: OptimOptions = OptimOptions()
    """Optimizer of the network."""
    optim_d: OptimOptions = OptimOptions()
    """Optimizer of the discriminator, where the model has one."""
    lr_scale: dict[str, Annotated[float, Field(ge=0)]] = {}
    """Part of the network (e.g. kalman_filter) → factor of its learning rate; 1 where not named."""
    schedule: Annotated[Any, SCHEDULES]
    """How the learning rates change over the run."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """Steps over which the learning rates rise linearly from zero."""
    ema: Fraction = 0.999
    """Decay of the exponential moving average of the weights; 0 switches it off."""
    grad_clip: PositiveFloat | None = None
    """Largest norm of the gradient; null: no clipping."""
    accumulate: PositiveInt = 1
    """Batches whose gradients add up to one step: a step sees batch_size × accumulate × processes clips."""
    amp: Literal["bf16", "fp16"] | None = None
    """Compute in bfloat16, or in float16 with scaled losses, where that is safe; null: float32. Weights, their average
    and validation stay float32."""
    tf32: bool = False
    """On CUDA, products of float32 matrices and convolutions with 10 bits of mantissa: about as precise as bf16."""
    channels_last: bool = False
    """Keep images as (N, H, W, C) in memory: faster convolutions on GPUs in half precision, and on CPUs."""
    compile: tuple[str, ...] = ()
    """Networks of the model that torch.compile translates, e.g. [net.generator, net.hq_encoder, discriminator]. The
    first steps take minutes."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """When a loss or a gradient is NaN or infinite: stop with its name, or leave that step out and count it."""
    max_skipped: PositiveInt = 10
    """With on_nonfinite: skip, how many steps in a row may be left out before the run stops after all."""


class TrainData(Options):
    train: Dataset
    """Training clips."""
    val: Dataset | None = None
    """Validation clips; null: no validation."""
    batch_size: PositiveInt = 1
    """Clips of one batch of one process."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Data loader processes; 0 loads in the training process. The drawn samples are the same for any number."""
    prefetch: bool = True
    """On CUDA, copy the next batches to the GPU on a stream of their own while a step computes."""


class ValOptions(Options):
    interval: PositiveInt = 5000
    """Steps between validations; one more is made at the end."""
    metrics: tuple[Metric, ...] = ()
    """What is measured."""


class LogOptions(Options):
    interval: PositiveInt = 100
    """Steps between lines in the log."""
    image_interval: PositiveInt = 5000
    """Steps between training clips in TensorBoard."""
    save_interval: PositiveInt = 5000
    """Steps between checkpoints; one more is made at the end."""
    keep_last: PositiveInt = 3
    """Checkpoints that stay on disk, the newest ones."""
    keep_best: Annotated[int, Field(ge=0)] = 1
    """Weights that stay on disk beside them: those with the best validation score."""
    best_metric: str | None = None
    """Name of the metric that says which are best; null: the first of val.metrics."""
    safetensors: bool = True
    """Write the weights to use (averaged, where there is an average) as .safetensors beside each .pth too."""
    wandb: WandbOptions | None = None
    """Send the records to Weights & Biases too; needs the extra ``wandb``."""
    profile: ProfileOptions | None = None
    """Time the parts of some steps and write a trace, under profile/."""


class _Run(Options):
    name: Annotated[str, Field(pattern=r"^\w[\w.+-]*$")]
    """Name of the run and of its folder: letters, digits, and . _ + - after the first."""
    plugins: tuple[Path, ...] = ()
    """Python files that register your own archs, losses, …; relative to the file that names them, and added to those of
    its ``_base_``."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Everything random follows from it: weights, data order, degradations."""
    device: str = "auto"
    """auto (CUDA where there is one, else CPU), cpu, cuda or cuda:N."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads for torch; 0 leaves torch's own choice."""


class TrainConfig(_Run):
    root: Path = Path("experiments")
    """Folder that holds the runs."""
    model: Annotated[Any, MODELS]
    """The training recipe of a stage, with its networks and losses."""
    pretrained: dict[str, Path] = {}
    """Weights to start from: name of the part (see the model) → checkpoint file."""
    data: TrainData
    """Training and validation clips."""
    train: TrainOptions
    """Optimization."""
    val: ValOptions = ValOptions()
    """Validation."""
    log: LogOptions = LogOptions()
    """Logs and checkpoints."""


class SaveOptions(Options):
    clips: Annotated[int, Field(ge=0)] = 3
    """How many clips of each split get videos, x–t slices and gain maps, the first ones."""
    crf: Annotated[int, Field(ge=0, le=51)] = 16
    """H.264 quality of the videos; lower is better."""
    worst: Annotated[int, Field(ge=0)] = 4
    """How many worst frames of each restorer the page shows, a split; 0: none are kept."""


class TestConfig(_Run):
    __test__: ClassVar[bool] = False  # for pytest: this is no test
    root: Path = Path("results")
    """Folder that holds the results."""
    data: Annotated[dict[str, Dataset], Field(min_length=1)]
    """Split → its clips to restore and score."""
    restorers: Annotated[dict[str, Annotated[Any, BASELINES]], Field(min_length=1)]
    """Row name → restorer. Every one sees the same clips."""
    metrics: tuple[Metric, ...]
    """What is measured."""
    paper: dict[str, Literal["mild", "medium", "heavy"]] = {}
    """Split → part of the paper's table A2 that is quoted beside it; splits with these names have theirs anyway."""
    save: SaveOptions = SaveOptions()
    """What is kept to look at."""


Config = TypeVar("Config", bound=_Run)


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


def import_registered() -> None:
    """Import the packages whose modules register names."""
    for package in (
        "archs", "flow", "losses", "metrics", "degradation", "data", "models", "schedules", "baselines", "faces",
    ):  # fmt: skip
        importlib.import_module(f"keep.{package}")


def load_plugin(path: Path) -> None:
    """Import a user's Python file, so that what it registers can be named in the YAML."""
    name = f"keep_plugin_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return
    if not path.is_file():
        raise UserError(f"plugins: there is no file {path}")
    import_registered()
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"plugins: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except UserError:
        del sys.modules[name]
        raise
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UserError(f"plugins: {path} fails on import: {type(error).__name__}: {error}") from error


def to_yaml(config: Options) -> str:
    """The resolved options as YAML that loads to an equal object."""
    return yaml.safe_dump(dump(config), sort_keys=False, width=110)


def json_schema() -> dict[str, Any]:
    """JSON schema for the YAML files (training and test alike), for completion and checks in editors."""
    import_registered()
    both = create_model("keep options", __base__=Options, train=(TrainConfig, ...), test=(TestConfig, ...))
    definitions = both.model_json_schema()["$defs"] | {r.kind: r.json_schema() for r in REGISTRIES}
    parts = [definitions.pop(c.__name__) for c in (TrainConfig, TestConfig)]
    for part in parts:
        part["properties"]["_base_"] = {
            "description": "Options files that this one builds upon, relative to it.",
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        }
    schema = {"title": "KEEP options", "anyOf": parts, "$defs": definitions}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_finish(schema)}


def _finish(node: Any) -> Any:
    """Registries become references; and only ``type`` stays required: the rest may come from a ``_base_``."""
    if isinstance(node, list):
        return [_finish(v) for v in node]
    if not isinstance(node, Mapping):
        return node
    if "x-registry" in node:
        rest = {k: v for k, v in node.items() if k != "x-registry"}
        return {**rest, "$ref": "#/$defs/" + node["x-registry"].replace(" ", "%20")}
    return {
        k: [r for r in v if r == "type"] if k == "required" and isinstance(v, list) else _finish(v)
        for k, v in node.items()
    }


__all__ = [
    "Source",
    "TestConfig",
    "TrainConfig",
    "check",
    "json_schema",
    "load",
    "load_plugin",
    "merge",
    "override",
    "read_yaml",
    "to_yaml",
]
