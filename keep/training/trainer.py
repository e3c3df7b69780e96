"""The one training loop, for all stages and for recipes of your own."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from keep.config.reading import to_yaml
from keep.config.registry import build
from keep.config.schema import TrainConfig
from keep.data.sampler import make_loader
from keep.models.base import Batch
from keep.training import checkpoint
from keep.training.codebook import CodeUse
from keep.training.distributed import no_sync, processes, wrap
from keep.training.folder import find_state, open_folder
from keep.training.guards import is_nonfinite, note_bad_clips, out_of_memory
from keep.training.precision import autocast
from keep.training.prefetch import on_device
from keep.training.profile import Profiler
from keep.training.records import Progress, RunLog, learning_rates
from keep.training.run import Run, build_run, check_data, describe
from keep.training.validation import Validation, preview, validate_if_due
from keep.utils.errors import UserError
from keep.utils.logging import log
from keep.utils.signals import Stopped, StopRequest


def train(config: TrainConfig, resume: str | None = None, allow_changed: bool = False) -> Path:
    """Train one stage from its options; returns the run's folder.

    Args:
        config: the checked options.
        resume: ``"auto"`` (the newest whole checkpoint of the run's folder, if any) or a ``.state`` file; None starts
            afresh, and an older run of the same name is moved aside.
        allow_changed: resume even when options differ that shape the result.

    Raises:
        Stopped: a signal asked for it; the state is saved, and ``resume`` goes on from there.
        UserError: the run cannot start or go on; the line says why.
    """
    with StopRequest() as request, processes(config.device) as ranks:
        if not ranks.first:
            log.setLevel(logging.ERROR)  # the first process tells what happens to all
        state = find_state(config, resume, ranks)
        run = build_run(config, ranks, start=state is None)
        data, val_data = build(config.data.train), build(config.data.val)
        check_data(run.recipe, data, val_data)
        validation = Validation.build(config, val_data)
        if state is not None:
            checkpoint.restore(run, state, allow_changed)
            if run.step >= config.train.iters and resume != "auto":
                raise UserError(f"--resume: {state} is at step {run.step}, and train.iters is {config.train.iters}")
        wrap(run.recipe, ranks, run.device)
        open_folder(run, fresh=state is None)
        run.profiler = Profiler(config.log.profile, run.folder, run.device, ranks.first)
        told = to_yaml(config)
        records = RunLog(run.folder, run.step, enabled=ranks.first, wandb=config.log.wandb, options=told)
        try:
            done = " (done already)" if run.step >= config.train.iters else ""
            log.info(f"{config.name}: {describe(run)}, {len(data)} training clips{done}")
            for line in getattr(data, "bad", ()):
                log.warning(f"warning: left out {line}")
            loop(run, data, validation, records, request)
        except torch.OutOfMemoryError as error:
            raise UserError(out_of_memory(run, error)) from error
        finally:
            run.profiler.close()
            records.close()
        return run.folder


def loop(run: Run, data: Any, validation: Validation, records: RunLog, request: StopRequest) -> None:
    """Every step that is still to be done; after it, where it is due: a stop, a checkpoint, a validation, a line."""
    options = run.config.log
    progress = Progress(run.config.name, run.config.train.iters, run.step, enabled=run.ranks.first)
    try:
        validate_if_due(run, validation, records, request)  # a run stopped in the middle of it is asked again
        for batches, waited in timed(run, batches_of_steps(run, data)):
            begun = time.perf_counter()
            note_bad_clips(run, batches)
            report = train_step(run, batches)
            run.step, run.position = run.step + 1, run.position + run.batch_size
            shown = report.means(run) if run.due(options.interval) else None
            rate = run.optimizers["net"].param_groups[0]["lr"]
            timing = progress.step(run.step, waited, time.perf_counter() - begun, shown, rate)
            if shown is not None:
                records.scalars(run.step, scalars(run, shown, report) | timing)
            if run.ranks.first and run.due(options.image_interval):
                records.clip("train", run.step, preview(run, batches[0]))
            if run.ranks.any(bool(request)):
                checkpoint.save(run, validation.better)
                raise Stopped(f"saved at step {run.step} after {request.name or 'a signal to another process'}")
            if run.due(options.save_interval) or validation.due(run):
                checkpoint.save(run, validation.better)
            validate_if_due(run, validation, records, request)
            run.profiler.step_done()
    finally:
        progress.close()


# --- data ---------------------------------------------------------------------------------------------------------


def batches_of_steps(run: Run, data: Any) -> Iterator[list[Batch]]:
    """For each step still to be done, the batches whose gradients it adds up, on the device.

    Where the data goes on follows from ``run.position`` alone.
    """
    options, count = run.config.data, run.config.train.accumulate
    start = -(-run.position // (options.batch_size * run.ranks.world))
    loader = make_loader(
        data, run.config.seed, options.batch_size, workers=options.workers, rank=run.ranks.rank, world=run.ranks.world,
        start=start, stop=start + (run.config.train.iters - run.step) * count,
    )  # fmt: skip
    batches: list[Batch] = []
    for batch in on_device(loader, run.device, options.prefetch):
        batches.append(batch)
        if len(batches) == count:
            yield batches
            batches = []


def timed(run: Run, steps: Iterator[list[Batch]]) -> Iterator[tuple[list[Batch], float]]:
    """The batches of a step, with the seconds spent waiting for them."""
    while True:
        start = time.perf_counter()
        with run.profiler.part("data"):
            batches = next(steps, None)
        if batches is None:
            return
        yield batches, time.perf_counter() - start


# --- one step -----------------------------------------------------------------------------------------------------


@dataclass
class StepReport:
    """What a step did.

    Attributes:
        terms: name → weighted loss term, of this process, the mean over its batches.
        norms: optimizer → norm of its gradient before clipping.
        skipped: whether the step was left out for a number that was not finite.
    """

    terms: dict[str, torch.Tensor]
    norms: dict[str, torch.Tensor]
    skipped: bool = False

    def means(self, run: Run) -> dict[str, float]:
        """The terms over all processes. All call it."""
        return dict(zip(self.terms, run.ranks.mean(torch.stack(list(self.terms.values()))).tolist(), strict=True))


def train_step(run: Run, batches: Sequence[Batch]) -> StepReport:
    """One step of every optimizer that the recipe names, on the gradients of all ``batches`` together.

    All backward passes come before the first weight changes. So a step that meets a NaN anywhere can be left out
    whole, in all processes, and accumulated batches give what one large batch gives.

    Args:
        run: the run; its networks, optimizers and average change, ``run.step`` does not.
        batches: tensors on the device; ``train.accumulate`` of them.
    """
    set_learning_rates(run)
    for optimizer in run.optimizers.values():
        optimizer.zero_grad(set_to_none=True)
    seen: list[tuple[str, int, torch.Tensor]] = []  # (term, batch, value)
    used: dict[str, torch.optim.Optimizer] = {}
    for i, batch in enumerate(batches):
        with nullcontext() if i == len(batches) - 1 else no_sync(run.recipe):
            for name, terms in loss_phases(run, batch):
                used[name] = run.optimizers[name]
                seen += [(term, i, value.detach().float()) for term, value in terms.items()]
                loss = torch.stack([v.float() for v in terms.values()]).sum() / len(batches)
                with run.profiler.part("backward"):
                    run.scaler.scale(loss).backward()
    with run.profiler.part("step"):
        norms = {name: gradient_norm(run, name) for name in used}
        skipped = is_nonfinite(run, seen, norms, batches)
        if not skipped:
            for name, optimizer in used.items():
                clip_gradients(run, name, norms[name])
                run.scaler.step(optimizer)
            if not run.scaler.is_enabled() or norms["net"].isfinite():  # or the scaler left this step out
                run.recipe.after_step(run.step)
                if run.ema is not None:
                    run.ema.update()
        if run.scaler.is_enabled():
            run.scaler.update()
    means: dict[str, torch.Tensor] = {}
    for term, _, value in seen:
        means[term] = means.get(term, 0) + value / len(batches)
    return StepReport(means, norms, skipped)


def loss_phases(run: Run, batch: Batch) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """The recipe's (optimizer, loss terms) of one batch, in the run's precision, and its codes counted."""
    steps = autocast(run.recipe.losses(batch, run.step), run.config.train, run.device)
    while True:
        with run.profiler.part("forward"):
            phase = next(steps, None)
        if phase is None:
            break
        yield phase
    for name, codes in run.recipe.codes.items():
        if name not in run.meters:
            run.meters[name] = CodeUse(run.recipe.codebook_size, run.device)
        run.meters[name].add(codes)


def set_learning_rates(run: Run) -> None:
    for name, optimizer in run.optimizers.items():
        rate = learning_rate(run, run.options_of(name).lr)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]


def learning_rate(run: Run, base: float) -> float:
    """Of this step: the schedule's, while it warms up a part of it."""
    options = run.config.train
    return run.schedule(base, run.step, options.iters) * min(1.0, (run.step + 1) / (options.warmup + 1))


def parameters_of(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def gradient_norm(run: Run, name: str) -> torch.Tensor:
    """Norm of the gradients of one optimizer, unscaled; the same in all processes."""
    run.scaler.unscale_(run.optimizers[name])
    return torch.nn.utils.get_total_norm([p.grad for p in parameters_of(run.optimizers[name]) if p.grad is not None])


def clip_gradients(run: Run, name: str, norm: torch.Tensor) -> None:
    if run.config.train.grad_clip is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters_of(run.optimizers[name]), run.config.train.grad_clip, norm)


def scalars(run: Run, terms: dict[str, float], report: StepReport) -> dict[str, float]:
    """What is recorded of a step. All processes call it: the use of codes is summed over them."""
    found = {f"loss/{k}": v for k, v in terms.items()} | learning_rates(run.optimizers)
    found |= {f"grad/{k}": v.item() for k, v in report.norms.items()}
    found |= {k: v.item() for k, v in run.recipe.stats.items()}
    for name, meter in run.meters.items():
        meter.counts.copy_(run.ranks.sum(meter.counts))
        found |= {f"{name}/{k}": v for k, v in meter.read().items()}
    if run.scaler.is_enabled():
        found["amp/scale"] = run.scaler.get_scale()
    if run.config.data.train.options.get("on_bad") == "skip":
        found["data/skipped"] = run.ranks.sum(torch.tensor(float(run.bad_clips.total()))).item()
    if run.skipped[1]:
        found["skipped"] = run.skipped[1]
    return found
