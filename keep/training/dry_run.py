"""Dry run: build everything and run one step of each phase; write nothing."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

from keep.config.registry import Spec, build
from keep.config.schema import TrainConfig
from keep.data.frames import to_uint8
from keep.degradation.pipeline import Pipeline
from keep.training.guards import StepCheck, out_of_memory
from keep.training.prefetch import to_device
from keep.training.run import Run, build_run, check_data, describe
from keep.training.trainer import train_step
from keep.training.validation import Validation
from keep.utils.errors import UserError
from keep.utils.logging import log
from keep.utils.paths import expand
from keep.utils.signals import StopRequest

CPU_FRAMES = 2
"""Frames of the one clip of a dry run on a CPU: enough for every part of the recurrence."""


def dry_run(config: TrainConfig) -> None:
    """Build everything and run one step of each phase and one validation; write nothing.

    Missing weights of losses and metrics are downloaded all the same.
    """
    run = build_run(config)
    log.info(f"dry run of {config.name}: {describe(run)}")
    data = build_or_warn(config.data.train, "data.train")
    val_data = build_or_warn(config.data.val, "data.val")
    check_data(run.recipe, data, val_data)
    metrics = Validation.build(config, val_data).metrics
    build(config.log.trackers)  # reports missing packages; opens nothing
    batches = [dry_batch(run, data)] * run.batches
    check = StepCheck(run, StopRequest())
    try:
        for phase, step in run.recipe.phases().items():
            run.step = step
            start = time.perf_counter()
            report = train_step(run, batches)
            check.submit(report.flags)
            check.must_stop(now=True)
            terms = "  ".join(f"{k} {v.item():.4g}" for k, v in report.terms.items())
            log.info(f"  {phase} (step {step}): {terms}  ({time.perf_counter() - start:.1f} s)")
    except torch.OutOfMemoryError as error:
        raise UserError(out_of_memory(run, error)) from error
    start = time.perf_counter()
    with torch.no_grad():
        output = to_uint8(run.recipe.restore(batches[0].get("lq", batches[0]["gt"])[:1, :2]))[0]
    scores = {m.name: float(m(output, to_uint8(batches[0]["gt"][0, :2])).mean()) for m in metrics}
    terms = "  ".join(f"{k} {v:.4g}" for k, v in scores.items())
    log.info(f"  validation: {terms}  ({time.perf_counter() - start:.1f} s)")
    log.info("dry run passed; nothing was written, except weights that had to be downloaded")


def dry_batch(run: Run, data: Any) -> dict[str, Any]:
    """The run's first batch; without ``data``, noise of the same shapes. On a CPU a small one."""
    config, device = run.config, run.device
    if data is None:
        log.info("  the steps below run on random clips")
        spec = config.data.train
        steps = [s.options.get("degradation") for s in (spec, *mixed_parts(spec))]
        data = RandomClips({**spec.options, "degradation": next(filter(None, steps), ())})
    count = run.batch_size if device.type != "cpu" else 1
    batch = default_collate([data[config.seed, i] for i in range(count)])
    if device.type == "cpu":
        frames = max(CPU_FRAMES, run.recipe.min_frames)
        log.info(f"  on a CPU: one clip of at most {frames} frames")
        batch = {k: v[:, :frames] if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    return to_device(batch, device)


def build_or_warn(spec: Any, where: str) -> Any:
    """The dataset; None and a warning if its root, or that of one of a mixed dataset, does not exist here."""
    parts = {where: spec} if spec is not None else {}
    parts |= {f"{where}.datasets.{i}": s for i, s in enumerate(mixed_parts(spec))}
    for name, part in parts.items():
        root = part.options.get("root")
        if root is not None and not expand(root).exists():
            log.warning(f"warning: {name}.root: {root} does not exist; a real run will not start")
            return None
    return None if spec is None else without_caches(spec).build()


def without_caches(spec: Spec) -> Spec:
    """The dataset without what it writes: the cache of low-quality clips and the index of its folder."""
    changes: dict[str, Any] = {}
    if "datasets" in spec.options:  # of a mixed dataset
        changes["datasets"] = tuple(without_caches(part) for part in spec.options["datasets"])
    if "gt" in spec.options:  # of pairs
        changes["gt"] = without_caches(spec.options["gt"])
    if "lq_cache" in spec.options:
        changes["lq_cache"] = None
    options = {**spec.options, **changes}
    return replace(spec, cls=type(spec.cls.__name__, (spec.cls,), {"keeps_index": False}), options=options)


def mixed_parts(spec: Any) -> Sequence[Any]:
    """The datasets of a mixed dataset; of another, none."""
    return spec.options.get("datasets", ()) if spec is not None else ()


class RandomClips:
    """Noise in the shape of a dataset's samples, degraded as in the options.

    Args:
        options: the dataset's options (``size``, ``clip_length``, ``degradation``).
    """

    def __init__(self, options: Any) -> None:
        self.size, self.length = options.get("size") or 512, options.get("clip_length") or CPU_FRAMES
        steps = build(options.get("degradation") or ())
        self.pipeline = Pipeline(steps, self.size) if steps else None

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        rng = np.random.default_rng(key)
        clip = rng.integers(0, 256, (self.length, self.size, self.size, 3), dtype=np.uint8)
        sample: dict[str, Any] = {"gt": torch.from_numpy(clip).permute(0, 3, 1, 2), "name": "random"}
        if self.pipeline is not None:
            sample["lq"] = torch.from_numpy(self.pipeline(clip, rng)[0]).permute(0, 3, 1, 2)
        return sample
