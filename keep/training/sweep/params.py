"""The options that a sweep varies, and the score that it compares."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keep.config.reading import load
from keep.config.registry import build
from keep.config.schema import TrainConfig
from keep.config.yaml_text import YamlError, parse_yaml
from keep.utils.errors import UserError, nearest

_NUMBER = r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"(log:)?({_NUMBER})\.\.({_NUMBER})", re.ASCII)
LAST = 10
"""Records of a loss whose mean is the score."""


@dataclass(frozen=True)
class Param:
    """An option to vary: a range of numbers, or ``choices`` as YAML text.

    Attributes:
        text: as written on the command line.
        low, high: ends of the range; both belong to it.
        log: draw the logarithm evenly.
        whole: draw whole numbers.
    """

    key: str
    text: str
    low: float = 0
    high: float = 0
    log: bool = False
    whole: bool = False
    choices: tuple[str, ...] = ()

    def suggest(self, trial: Any) -> Any:
        """The value of this option in an Optuna trial."""
        if self.choices:
            return trial.suggest_categorical(self.key, self.choices)
        if self.whole:
            return trial.suggest_int(self.key, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.key, self.low, self.high, log=self.log)

    def extremes(self) -> Iterable[Any]:
        """All choices, or both ends."""
        return self.choices or ((int(self.low), int(self.high)) if self.whole else (self.low, self.high))


def parse_param(text: str) -> Param:
    """``KEY=log:1e-5..1e-3``, ``KEY=0.1..0.9``, ``KEY=1..8`` or ``KEY=[a, b]``.

    Raises:
        UserError: of another form, or an empty range.
    """
    key, _, values = (part.strip() for part in text.partition("="))
    found = _RANGE.fullmatch(values)
    if key and found:
        low, high = float(found[2]), float(found[3])
        whole = found[2].lstrip("+-").isdecimal() and found[3].lstrip("+-").isdecimal()
        if low >= high or (found[1] and low <= 0):
            raise UserError(
                f"--param {text}: the first end must be below the second" + ", and above 0" * bool(found[1])
            )
        return Param(key, text, low, high, bool(found[1]), whole)
    if key and values.startswith("["):
        try:
            choices = parse_yaml(values).data
        except YamlError as error:
            raise UserError(f"--param {text}: not valid YAML: {error}") from None
        if isinstance(choices, list) and choices:
            return Param(key, text, choices=tuple(c if isinstance(c, str) else json.dumps(c) for c in choices))
    raise UserError(f"--param {text}: expected KEY=log:1e-5..1e-3, KEY=0.1..0.9, KEY=1..8 or KEY=[a, b, c]")


def check_params(params: list[Param], opt: str, overrides: list[str]) -> None:
    """Raise UserError unless every choice, and both ends of every range, are values that the option may have."""
    if not params:
        raise UserError("name the options to vary: --param train.optim.lr=log:1e-5..1e-3")
    keys = [param.key for param in params]
    for param in params:
        if keys.count(param.key) > 1 or param.key in ("seed", "name", "root"):
            raise UserError(f"--param {param.text}: {param.key} cannot vary here, or is given twice")
        for value in param.extremes():
            load(opt, [*overrides, f"{param.key}={value}"], TrainConfig)


@dataclass(frozen=True)
class Score:
    """The number that is compared: ``key`` in ``log.jsonl``, or its start up to a bracket."""

    name: str
    key: str
    higher_is_better: bool

    def read(self, folder: Path) -> float | None:
        """The last validation score of a run, or the mean of the last ten records of a loss; None without any."""
        values = []
        for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            values += [v for k, v in record.items() if k == self.key or k.startswith(f"{self.key} (")]
        last = values[-LAST:] if self.key.startswith("loss/") else values[-1:]
        if not last or any(value is None for value in last):
            return None
        return sum(last) / len(last)


def score_of(config: TrainConfig, name: str | None) -> Score:
    """The score named ``name``; by default the metric that chooses a run's best weights.

    Raises:
        UserError: no such metric, or none at all.
    """
    metrics = {} if config.data.val is None else {m.name: m for m in build(config.val.metrics)}
    name = name or config.log.best_metric or next(iter(metrics), None)
    if name is None:
        raise UserError("these options validate nothing: name a loss to compare, --metric loss/pixel")
    if name in metrics:
        return Score(name, f"val/{name}", bool(metrics[name].higher_is_better))
    if name.startswith("loss/"):
        return Score(name, name, False)
    hint = nearest(name, metrics) or f"; known: {', '.join([*metrics, 'loss/TERM'])}"
    raise UserError(f"--metric {name}: no such metric in val.metrics{hint}")
