"""The training loop of all stages: :func:`train` starts a run, :func:`loop` runs it, :func:`train_step` is one step."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import torch

from keep.config.reading import to_yaml
from keep.config.registry import build
from keep.config.schema import TrainConfig
from keep.data.workers import watched_workers
from keep.models.base import Batch, Terms
from keep.training import checkpoint
from keep.training.distributed import no_sync, wrap
from keep.training.folder import find_state, only_run, open_folder
from keep.training.guards import (
    StepCheck,
    clip_gradients,
    count_bad_clips,
    flag_nonfinite,
    gradient_norm,
    handle_nonfinite,
    out_of_memory,
    reads_at_once,
    warn_of_cpu_flow,
)
from keep.training.joining import processes
from keep.training.precision import autocast
from keep.training.prefetch import step_batches
from keep.training.profile import Profiler
from keep.training.progress import Progress, StepReport, log_step
from keep.training.records import RunLog
from keep.training.run import Run, build_run, check_data, describe
from keep.training.validation import Validation, preview, validate_if_due
from keep.utils.errors import UserError
from keep.utils.logging import log
from keep.utils.signals import Stopped, StopRequest


def train(config: TrainConfig, resume: str | None = None, allow_changed: bool = False) -> Path:
    """Train one stage; returns the run's folder.

    Args:
        config: the checked options.
        resume: ``"auto"`` (the newest intact checkpoint in the run's folder, if any) or a ``.state`` file; None starts
            a new run and renames the folder of an older run of the same name.
        allow_changed: resume even if options that shape the result have changed.

    Raises:
        Stopped: a signal requested it; the state is saved, and ``resume`` continues from there.
        UserError: the run cannot start or continue; the message says why.
    """
    arguments = {"--resume": resume, "--allow-changed": allow_changed}
    with StopRequest() as request, processes(config, request, **arguments) as ranks, only_run(config, ranks):
        if not ranks.first:
            log.setLevel(logging.ERROR)  # what concerns all processes is logged by the first
        state = find_state(config, resume, ranks)
        run = build_run(config, ranks, start=state is None)
        data, val_data = build(config.data.train), build(config.data.val)
        check_data(run.recipe, data, val_data)
        run.data = data.digest() if hasattr(data, "digest") else ""
        validation = Validation.build(config, val_data)
        trackers = build(config.log.trackers)  # in every process, which all stop where a package is missing
        if state is not None:
            checkpoint.resume(run, state, allow_changed)
            if run.step >= config.train.iters and resume != "auto":
                raise UserError(f"--resume: {state} is at step {run.step}, and train.iters is {config.train.iters}")
        wrap(run.recipe, ranks, run.device)
        open_folder(run, fresh=state is None)
        run.profiler = Profiler(config.log.profile, run.folder, run.device, ranks.first)
        records = RunLog(run.folder, run.step, trackers if ranks.first else None, to_yaml(config))
        with records, closing(run.profiler):
            finished = " (finished already)" if run.step >= config.train.iters else ""
            log.info(f"{config.name}: {describe(run)}, {len(data)} training clips{finished}")
            for line in getattr(data, "bad", ()):
                log.warning(f"warning: skipped {line}")
            try:
                with watched_workers():
                    loop(run, data, validation, records, request)
            except torch.OutOfMemoryError as error:
                raise UserError(out_of_memory(run, error)) from error
        return run.folder


def loop(run: Run, data: Any, validation: Validation, records: RunLog, request: StopRequest) -> None:
    """Run the remaining steps; after each, log, save, stop or validate when due."""
    options, first, check = run.config.log, run.step, StepCheck(run, request)
    with closing(Progress(run.config.name, run.config.train.iters, run.step, enabled=run.ranks.first)) as progress:
        validate_if_due(run, validation, records, request)  # a run stopped during a validation repeats it
        for batches, waited in step_batches(run, data):
            start = time.perf_counter()
            count_bad_clips(run, batches)
            report = train_step(run, batches)
            if run.step == first:
                warn_of_cpu_flow(run.recipe, run.device)
            run.step, run.position = run.step + 1, run.position + run.clips_per_step
            check.submit(report.flags)
            saves = run.due(options.save_interval) or validation.due(run)
            shows = run.due(options.interval) or run.due(options.image_interval)
            stop = check.must_stop(now=saves or shows)
            log_step(run, report, progress, records, waited, start)
            if run.ranks.first and run.due(options.image_interval):
                records.clip("train", run.step, preview(run, batches[0]))
            if stop or saves:
                checkpoint.save(run, validation.higher_is_better)
            if stop:
                raise Stopped(f"saved at step {run.step} after {request.name or 'a signal to another process'}")
            validate_if_due(run, validation, records, request)
            run.profiler.step_done()


def train_step(run: Run, batches: Sequence[Batch]) -> StepReport:
    """One step of every optimizer that the recipe names, on the gradients averaged over all ``batches``.

    All backward passes come before any weight changes, so accumulated batches give the result of one large batch.
    With ``train.on_nonfinite: skip``, or with float16, a step that is not finite changes the weights in no process.
    Otherwise it changes them, and :class:`StepCheck` stops the run one step later, before anything is saved.

    Args:
        run: the run; its networks, optimizers and average change, ``run.step`` does not.
        batches: tensors on the device; ``run.batches`` of them.
    """
    set_learning_rates(run)
    run.recipe.last_step = run.step
    for optimizer in run.optimizers.values():
        optimizer.zero_grad(set_to_none=True)
    values: list[tuple[str, int, torch.Tensor]] = []  # (term, batch, value)
    used: dict[str, torch.optim.Optimizer] = {}
    for i, batch in enumerate(batches):
        with nullcontext() if i == len(batches) - 1 else no_sync(run.recipe):
            losses = run.recipe.losses(batch, run.step)
            while (pair := next_losses(run, losses)) is not None:
                name, terms = pair
                used[name] = run.optimizers[name]
                values += [(term, i, value.detach().float()) for term, value in terms.items()]
                loss = torch.stack([v.float() for v in terms.values()]).sum() / len(batches)
                with run.profiler.part("backward"):
                    run.scaler.scale(loss).backward()
        run.count_codes()
    with run.profiler.part("step"):
        norms = {name: gradient_norm(run, optimizer) for name, optimizer in used.items()}
        flags, checked = flag_nonfinite(run, values, norms, batches), reads_at_once(run)
        skipped = checked and handle_nonfinite(run, flags)
        if not skipped:
            for name, optimizer in used.items():
                clip_gradients(run, optimizer, norms[name])
                run.scaler.step(optimizer)
            if not run.scaler.is_enabled() or norms["net"].isfinite():  # else the scaler skipped this step
                run.recipe.after_step(run.step)
                if run.ema is not None:
                    run.ema.update()
        if run.scaler.is_enabled():
            run.scaler.update()
    means: dict[str, torch.Tensor] = {}
    for term, _, value in values:
        means[term] = means.get(term, 0) + value / len(batches)
    return StepReport(means, norms, skipped, None if checked else flags)


def next_losses(run: Run, losses: Iterator[tuple[str, Terms]]) -> tuple[str, Terms] | None:
    """The recipe's next (optimizer name, loss terms), computed in the run's precision; None after the last."""
    with run.profiler.part("forward"), autocast(run.config.train, run.device):
        return next(losses, None)


def set_learning_rates(run: Run) -> None:
    """Set the rates of this step: the schedule's, times the share of the warm-up, times each group's ``scale``."""
    options = run.config.train
    warmup = min(1.0, (run.step + 1) / (options.warmup + 1))
    for name, optimizer in run.optimizers.items():
        rate = run.schedule(run.spec_of(name).options["lr"], run.step, options.iters) * warmup
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
