"""One clip of a benchmark: restore and score it, save what is shown of it, and write its record."""

import json
import shutil
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keep.config.schema import TestConfig
from keep.data.base import ClipDataset
from keep.evaluation.evaluate import ClipResult, Failure, one_line, score_clip
from keep.evaluation.report.media import Media, save_clip, save_frames, save_worst
from keep.evaluation.report.records import Unit, failed_record, record_of, restorer_of, samples_of, write_json
from keep.metrics.base import SetMetric
from keep.utils.clock import Clock
from keep.utils.errors import UserError
from keep.utils.logging import log


def score_unit(
    unit: Unit, config: TestConfig, dataset: Any, restorers: Mapping[str, Any], metrics: Sequence[Any], clock: Clock
) -> None:
    """Restore and score one clip and write its files: pictures first, the record last.

    A failure is logged and recorded, and the rest continues.

    Args:
        restorers: those to run; the scores of the others stay in the record.
    """
    kept = _kept_record(unit, restorers)
    if kept is None:
        shutil.rmtree(unit.path("media"), ignore_errors=True)  # a killed run leaves incomplete videos

    def report(failure: Failure, error: Exception) -> None:
        where = ": ".join(x for x in (f"{unit.split}/{unit.clip}", failure.restorer, failure.metric) if x)
        log.error(f"error: {where}: {failure.message}")
        if not isinstance(error, UserError):  # not the user's mistake: show where it happened
            log.error("".join(traceback.format_exception(error)))

    try:
        sample = read_sample(dataset, config.seed, unit.number, clock)
        result = score_clip(sample, unit.number, restorers, metrics, clock, report)
    except Exception as error:
        failure = Failure("", None, one_line(error))
        report(failure, error)
        unit.write(failed_record(unit, failure.message), {})
        return
    with clock("pictures"):
        media = _save_media(unit, config, result, float(sample.get("fps", 25)), metrics)
    samples, seconds = samples_of(result), clock.seconds
    if kept is not None:
        worst = {**kept["media"]["worst"], **media["worst"]}
        media["worst"] = {name: worst[name] for name in unit.restorer_keys if name in worst}
        samples = {**{k: v for k, v in unit.samples().items() if restorer_of(k) in kept["restorers"]}, **samples}
        seconds = _sum_seconds(seconds, unit)
    unit.write(record_of(unit, sample, result, media, kept), samples)
    costs = {"frames": len(sample["gt"]), "seconds": seconds, "memory": clock.memory}
    write_json(unit.path("seconds", ".json"), costs)


def _kept_record(unit: Unit, restorers: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record without the restorers that run again; None when all of them run."""
    record = unit.read()
    if record is None or all(name in restorers for name in unit.restorer_keys):
        return None
    return {**record, "restorers": {k: v for k, v in record["restorers"].items() if k not in restorers}}


def _sum_seconds(seconds: Mapping[str, float], unit: Unit) -> dict[str, float]:
    """``seconds`` plus those of earlier runs on this clip."""
    try:
        before = json.loads(unit.path("seconds", ".json").read_text(encoding="utf-8"))["seconds"]
    except (OSError, ValueError):
        before = {}
    return {part: before.get(part, 0.0) + seconds.get(part, 0.0) for part in {**before, **seconds}}


def read_sample(dataset: Any, seed: int, number: int, clock: Clock) -> Mapping[str, Any]:
    """One sample; the clock gets the time of ``decode``, and of ``degrade`` if the dataset degrades."""
    if isinstance(dataset, ClipDataset):
        return dataset.sample(seed, number, clock)
    with clock("decode"):
        return dataset[seed, number]


# --- pictures ---------------------------------------------------------------------------------------------------


def wanted_media(unit: Unit, config: TestConfig) -> dict[str, Any]:
    """Which pictures and videos of this clip are saved, as plain data for its record."""
    videos = list(unit.restorer_keys) if unit.number < config.save.clips else []
    wanted = {"videos": videos, "crf": config.save.crf, "worst": config.save.worst > 0}
    return {**wanted, "frames": config.save.frames} if videos and config.save.frames else wanted


def _save_media(
    unit: Unit, config: TestConfig, result: ClipResult, fps: float, metrics: Sequence[Any]
) -> dict[str, Any]:
    """Save the clip's videos and worst frames; the fields of :class:`Media`, and what was wanted.

    The first metric that has a value for every frame decides which frame is worst.
    """
    wanted = wanted_media(unit, config)
    folder = unit.path("media")
    media = Media()
    clips = {k: np.ascontiguousarray(v.permute(0, 2, 3, 1).numpy()) for k, v in result.panels.items()}
    if wanted["videos"]:
        media = save_clip(unit.folder, folder, clips, result.gains, fps, config.save.crf, result.errors)
    if "frames" in wanted:
        save_frames(folder, clips)
    judge = next((m for m in metrics if not isinstance(m, SetMetric) and m.per_frame), None)
    if wanted["worst"] and judge is not None:
        for score in result.scores:
            values = score.per_frame[judge.name]
            worst = save_worst(unit.folder, folder, score.restorer, clips, values, judge.higher_is_better)
            if worst is not None:
                media.worst[score.restorer] = {**worst, "metric": judge.name}
    return {"wanted": wanted, **media.plain()}
