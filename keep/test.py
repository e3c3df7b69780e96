"""Restore and score clips: any registered restorers on any splits, and a report of it.

    python -m keep.test -opt options/test/vfhq_heavy.yml
    python -m keep.test -opt options/test/vfhq_heavy.yml --num 5               # a quick look at five clips
    torchrun --nproc-per-node 4 -m keep.test -opt options/test/vfhq.yml        # the clips shared out among ranks

A run that was stopped goes on where it was: give the same command again. Exit status: 0, everything has its number;
1, the run is finished, but something could not be done (each was told in a line, and is in the report); 2, bad input,
and nothing was run; 130, stopped with Ctrl-C. Of several ranks, all but the last one to finish end with 0 (or torchrun
would stop the others), and the last one speaks for all.
"""  # fmt: skip

import json
import logging
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partialmethod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from keep.config import cli
from keep.config.reading import to_yaml
from keep.config.registry import build, dump
from keep.config.schema import TestConfig
from keep.data.clips import damaged_clips_stay
from keep.evaluation.evaluate import ClipResult, Clock, Failure, check_names, score_clip, told
from keep.evaluation.report.costs import write_costs
from keep.evaluation.report.media import Media, save_clip, save_worst
from keep.evaluation.report.origin import code, file_hashes, opened, versions
from keep.evaluation.report.records import (
    Unit,
    clips_of,
    failed_record,
    key_of,
    left,
    record_of,
    restorer_of,
    samples_of,
    settled,
    write_json,
)  # fmt: skip
from keep.evaluation.report.write import describe, write_report
from keep.metrics.base import SetMetric, build_metrics
from keep.metrics.faces import default_detector
from keep.utils.devices import prepare
from keep.utils.errors import UserError
from keep.utils.io import write_file
from keep.utils.logging import log, to_console

T = TypeVar("T")
PLACE = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
"""Environment variable → its value where there is one process."""


def test(config: TestConfig, num: int | None) -> int:
    """Run ``keep.test``: the exit status; the results are in ``root/name``.

    Args:
        config: the options.
        num: do only the first so many clips of each split, with results in ``root/name_num``; None is all.
    """
    rank, world, local = place()
    device = prepare(config.device, config.threads, config.seed, local)
    check_names(config.restorers)
    if unknown := config.paper.keys() - config.data.keys():
        raise UserError(f"paper: {', '.join(unknown)} is no split of data; the splits are {', '.join(config.data)}")
    folder = config.root / (config.name if num is None else f"{config.name}_{num}")
    with damaged_clips_stay():
        datasets = {split: build(spec) for split, spec in config.data.items()}
    problems: list[str] = []
    default_detector.cache_clear()  # so that its file is seen to be opened
    with opened() as files:
        metrics = metrics_that_build(config, problems)
    measured = [dump(config.metrics), [[m.name, m.describe()] for m in metrics], file_hashes(config.metrics, files)]
    about = {"versions": versions(), "code": code(), "device": device.type}
    hashes = {**file_hashes(config.plugins), **measured[-1]}
    restorers, keys = {}, {}
    for name, spec in config.restorers.items():
        with opened() as files:
            restorer = attempt(f"restorer {name}", spec.build, problems)
        if restorer is not None:
            own = file_hashes(spec, files)
            restorers[name], keys[name] = restorer.to(device), key_of(dump(spec), describe(restorer), own, measured)
            hashes |= own
    for line in problems:
        log.error(f"error: {line}; left out")
    if not restorers:
        raise UserError("no restorer can be had: " + "; ".join(problems))

    units = plan(config, folder, datasets, [about, file_hashes(config.plugins)], keys, num)
    mine = units[rank::world]
    pending = [(u, names) for u in mine if (names := left(u.read(), wanted_media(u, config, keys), list(keys)))]
    log.info(
        f"{config.name}: {len(units)} clips, {', '.join(restorers)}, on {device}"
        + (f"; {len(mine) - len(pending)} are there already" if len(pending) < len(mine) else "")
        + (f"; rank {rank} of {world} does {len(pending)}" if world > 1 else "")
    )
    bar = tqdm(pending, desc=config.name, unit="clip", delay=2, leave=False, disable=None if rank == 0 else True)
    for unit, names in bar:
        chosen = {name: restorers[name] for name in names}
        do(unit, config, datasets[unit.split], chosen, metrics, Clock(device))

    records = [(u, u.read()) for u in units]
    missing = sum(not settled(r, wanted_media(u, config, keys), list(keys)) for u, r in records)
    if missing:  # ranks have nothing to say to each other: whoever finishes last finds everything there
        log.info(f"rank {rank} is done; {missing} clips are still with other ranks, and the last one writes the report")
        return 0
    about["files"] = dict(sorted(hashes.items()))
    write_file(folder / "options.yml", to_yaml(config).encode())
    content = write_report(folder, config, about, restorers, metrics, [(u, r) for u, r in records if r], problems)
    write_costs(folder, units)
    for line in content["problems"]:
        log.warning(f"warning: {line}")
    log.info(f"in {folder}: report.html, table.md, table.tex, frames.csv, clips.csv, results.json")
    return 1 if content["problems"] else 0


test.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]  (pytest: this is no test)


# --- what is to be done ---------------------------------------------------------------------------------------


def place() -> tuple[int, int, int]:
    """Rank, number of ranks, number on this machine, as torchrun or a job array sets them; (0, 1, 0) without."""
    try:
        rank, world, local = (int(os.environ.get(k, d)) for k, d in PLACE.items())
    except ValueError:
        raise UserError(f"{', '.join(PLACE)} in the environment must be numbers") from None
    if not 0 <= rank < world:
        raise UserError(f"RANK={rank} must be at least 0 and less than WORLD_SIZE={world}")
    return rank, world, local


def attempt(where: str, make: Callable[[], T], problems: list[str]) -> T | None:
    """``make()``; None, and a line among the problems, where it is refused."""
    try:
        return make()
    except UserError as error:
        problems.append(f"{where}: {error}")
        return None


def metrics_that_build(config: TestConfig, problems: list[str]) -> list[Any]:
    """The metrics, but those whose network or file is missing."""
    try:
        return build_metrics(config.metrics)
    except UserError:  # find out which, one by one
        good = [s for s in config.metrics if attempt(f"metric {s.type}", s.build, problems) is not None]
        return build_metrics(good)


def plan(
    config: TestConfig,
    folder: Path,
    datasets: Mapping[str, Any],
    about: Any,
    keys: Mapping[str, str],
    num: int | None,
) -> list[Unit]:
    """Every clip of every split, with the keys that its record must have; ``keys``: those of the restorers."""
    units = []
    for split, dataset in datasets.items():
        for number, (clip, source) in list(enumerate(clips_of(dataset)))[:num]:
            key = key_of(about, config.seed, dump(config.data[split]), split, clip, number, source)
            units.append(Unit(split, number, clip, key, folder, keys))
    return units


def wanted_media(unit: Unit, config: TestConfig, restorers: Iterable[str]) -> dict[str, Any]:
    """What is kept of this clip to look at."""
    videos = list(restorers) if unit.number < config.save.clips else []
    return {"videos": videos, "crf": config.save.crf, "worst": config.save.worst > 0}


# --- one clip ---------------------------------------------------------------------------------------------------


def do(
    unit: Unit, config: TestConfig, dataset: Any, restorers: Mapping[str, Any], metrics: Sequence[Any], clock: Clock
) -> None:
    """Restore and score one clip, and write its files: pictures first, the record last.

    Args:
        restorers: those to run; what the record has of the others is kept.
    """
    old = unit.read()
    kept = old if old is not None and any(name not in restorers for name in unit.keys) else None
    if kept is None:
        shutil.rmtree(unit.place("media"), ignore_errors=True)  # a killed run leaves halves of videos
    else:
        again = {name: part for name, part in kept["restorers"].items() if name not in restorers}
        kept = {**kept, "restorers": again}

    def tell(failure: Failure, error: Exception) -> None:
        where = ": ".join(x for x in (f"{unit.split}/{unit.clip}", failure.restorer, failure.metric) if x)
        log.error(f"error: {where}: {failure.message}")
        if not isinstance(error, UserError):  # not the user's mistake: show where it happened
            log.error("".join(traceback.format_exception(error)))

    try:
        sample = read_sample(dataset, config.seed, unit.number, clock)
        with no_inner_bars():
            result = score_clip(sample, unit.number, restorers, metrics, clock, tell)
    except Exception as error:
        failure = Failure("", None, told(error))
        tell(failure, error)
        unit.write(failed_record(unit, failure.message), {})
        return
    with clock.part("pictures"):
        media = save_media(unit, config, result, float(sample.get("fps", 25)), metrics)
    samples, seconds = samples_of(result), clock.seconds
    if kept is not None:
        worst = {**kept["media"]["worst"], **media["worst"]}
        media["worst"] = {name: worst[name] for name in unit.keys if name in worst}
        samples = {**{k: v for k, v in unit.samples().items() if restorer_of(k) in kept["restorers"]}, **samples}
        seconds = added(seconds, unit)
    unit.write(record_of(unit, sample, result, media, kept), samples)
    costs = {"frames": len(sample["gt"]), "seconds": seconds, "memory": clock.memory}
    write_json(unit.place("seconds", ".json"), costs)


def added(seconds: Mapping[str, float], unit: Unit) -> dict[str, float]:
    """The seconds of a clip that was taken up again, with those it had cost before."""
    try:
        before = json.loads(unit.place("seconds", ".json").read_text(encoding="utf-8"))["seconds"]
    except (OSError, ValueError):
        before = {}
    return {part: before.get(part, 0.0) + seconds.get(part, 0.0) for part in {**before, **seconds}}


@contextmanager
def no_inner_bars() -> Iterator[None]:
    """Within, no progress bar is shown: there is one for the clips already."""
    show = tqdm.__init__
    tqdm.__init__ = partialmethod(show, disable=True)  # type: ignore[method-assign]
    try:
        yield
    finally:
        tqdm.__init__ = show  # type: ignore[method-assign]


def read_sample(dataset: Any, seed: int, number: int, clock: Clock) -> Mapping[str, Any]:
    """One sample; the time it takes is split into reading and degrading where the dataset has a pipeline."""
    pipeline = getattr(dataset, "pipeline", None)
    if pipeline is not None:
        dataset.pipeline = Timed(pipeline, clock, "degrade")
    try:
        with clock.part("decode"):
            return dataset[seed, number]
    finally:
        if pipeline is not None:
            dataset.pipeline = pipeline
            clock.seconds["decode"] -= clock.seconds.get("degrade", 0.0)


class Timed:
    """``inner``, whose methods are timed."""

    def __init__(self, inner: Any, clock: Clock, part: str) -> None:
        self._inner, self._clock, self._part = inner, clock, part

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._timed(self._inner)(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        return self._timed(value) if callable(value) else value

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with self._clock.part(self._part):
                return function(*args, **kwargs)

        return call


def save_media(
    unit: Unit, config: TestConfig, result: ClipResult, fps: float, metrics: Sequence[Any]
) -> dict[str, Any]:  # fmt: skip
    """The clip's files to look at, as :class:`Media` tells them; worst by the first metric that has frames' values."""
    wanted = wanted_media(unit, config, unit.keys)
    folder = unit.place("media")
    media = Media()
    clips = {k: np.ascontiguousarray(v.permute(0, 2, 3, 1).numpy()) for k, v in result.panels.items()}
    if wanted["videos"]:
        media = save_clip(unit.folder, folder, clips, result.gains, fps, config.save.crf)
    judge = next((m for m in metrics if not isinstance(m, SetMetric) and m.per_frame), None)
    if wanted["worst"] and judge is not None:
        for score in result.scores:
            values = score.per_frame[judge.name]
            worst = save_worst(unit.folder, folder, score.restorer, clips, values, judge.higher_is_better)
            if worst is not None:
                media.worst[score.restorer] = {**worst, "metric": judge.name}
    return {"wanted": wanted, **media.plain()}


def command(argv: Sequence[str] | None) -> int:
    parser = cli.parser("keep-test", "Restore and score clips from an options file.")
    parser.add_argument("--num", type=int, metavar="N", help="only the first N clips of each split: a quick look")
    args = parser.parse_args(argv)
    if args.num is not None and args.num < 1:
        raise UserError(f"--num {args.num}: give a number of clips, 1 or more")
    config = cli.read_options(args, TestConfig)
    if config is None:
        return 0
    to_console(logging.INFO)
    return test(config, args.num)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
