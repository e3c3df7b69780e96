"""Guards of a run: gradient clipping, values that are not finite, bad clips, and a GPU out of memory."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn as nn

from keep.config.registry import Spec
from keep.models.base import Batch
from keep.training.distributed import Arriving
from keep.training.run import Run
from keep.utils.errors import UserError
from keep.utils.logging import log
from keep.utils.signals import StopRequest

Values = list[tuple[str, int, torch.Tensor]]
"""(loss term, number of the batch in the step, value)"""


def gradient_norm(run: Run, optimizer: torch.optim.Optimizer) -> torch.Tensor:
    """Norm of an optimizer's gradients, unscaled; the same in all processes."""
    run.scaler.unscale_(optimizer)
    return torch.nn.utils.get_total_norm([p.grad for p in _with_gradient(optimizer) if p.grad is not None])


def clip_gradients(run: Run, optimizer: torch.optim.Optimizer, norm: torch.Tensor) -> None:
    """Scale an optimizer's gradients of norm ``norm`` down to the norm ``train.grad_clip``."""
    if run.config.train.grad_clip is not None:
        torch.nn.utils.clip_grads_with_norm_(_with_gradient(optimizer), run.config.train.grad_clip, norm)


def _with_gradient(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


@dataclass(frozen=True)
class StepFlags:
    """Which numbers of a step are NaN or infinite, and what is needed to name them. It does not hold the batches.

    Attributes:
        step: number of the step, from 1.
        bad: of each loss term, then of each gradient, whether it is not finite; on the device.
        terms: each loss term and its clips.
        gradients: the optimizer of each gradient.
    """

    step: int
    bad: torch.Tensor
    terms: list[str]
    gradients: list[str]


def flag_nonfinite(run: Run, values: Values, norms: Mapping[str, torch.Tensor], batches: Sequence[Batch]) -> StepFlags:
    """The flags of the current step. Does not wait for the device, except with float16.

    With float16, gradients that overflow are normal: the scaler skips the step and lowers its scale. Below a scale of
    1 the scale was not the cause.

    Args:
        run: the run, before it counts the step.
        values: the loss terms.
        norms: optimizer → norm of its gradient.
        batches: those of the step.
    """
    if run.scaler.is_enabled() and run.scaler.get_scale() >= 1:
        norms = {}
    numbers = [value for _, _, value in values] + [norm.float() for norm in norms.values()]
    bad = ~torch.isfinite(torch.stack(numbers))  # in the same order in all processes
    clips = [describe_clips(run, i, batch) for i, batch in enumerate(batches)]
    return StepFlags(run.step + 1, bad, [f"{term} of {clips[i]}" for term, i, _ in values], list(norms))


def reads_at_once(run: Run) -> bool:
    """Whether a step must know that it is finite before its optimizers step; else :class:`StepCheck` reads it later."""
    return run.config.train.on_nonfinite == "skip" or run.scaler.is_enabled()


def handle_nonfinite(run: Run, flags: StepFlags) -> bool:
    """True if the step is not finite in any process: log it, count it, and skip it. Waits for the device.

    Raises:
        UserError: the step is not finite, and ``train.on_nonfinite`` is ``stop``, or more than ``train.max_skipped``
            steps in a row are not finite.
    """
    if not run.ranks.max(flags.bad.any().float()).item():
        run.skipped = (0, run.skipped[1])
        return False
    if run.config.train.on_nonfinite == "stop":
        raise nonfinite_error(run, flags)
    message = describe_nonfinite(run, flags)
    in_a_row, total = run.skipped[0] + 1, run.skipped[1] + 1
    if in_a_row > run.config.train.max_skipped:
        raise UserError(
            f"{message}; {in_a_row} steps in a row, and train.max_skipped is {run.config.train.max_skipped}"
        )
    run.skipped = (in_a_row, total)
    log.warning(f"warning: {message}; skipped this step ({total} so far)")
    return True


class StepCheck:
    """Whether the steps are finite, and whether a process received a stop request; the same in all processes.

    The flags of a step are reduced over the processes and copied to the host in the background. They are read after the
    next step was started, so the GPU never waits. Before anything is written, the flags of the current step are read,
    so a bad step is never saved. With one process, a stop request takes effect after the current step.

    Args:
        run: the run.
        request: the stop request of this process.
    """

    def __init__(self, run: Run, request: StopRequest) -> None:
        self._run, self._request = run, request
        self._pending: deque[tuple[StepFlags | None, Arriving]] = deque()

    def submit(self, flags: StepFlags | None) -> None:
        """Start the exchange of a step's flags; None: they have been read. All processes call it after every step."""
        # Not torch.tensor(…), whose copy to a GPU waits for the GPU.
        stop = torch.full((), float(bool(self._request)), device=self._run.device)
        bad = torch.zeros_like(stop) if flags is None else flags.bad.any().float()
        self._pending.append((flags, self._run.ranks.start_max(torch.stack([bad, stop]))))

    def must_stop(self, now: bool) -> bool:
        """Whether all processes stop after this step.

        Args:
            now: read the flags of the latest step, too, because something is about to be written.

        Raises:
            UserError: a step was not finite.
        """
        stop = self._run.ranks.world == 1 and bool(self._request)
        while len(self._pending) > (0 if now or stop else 1):
            flags, arriving = self._pending.popleft()
            bad, requested = arriving.read()
            if flags is not None:
                if bad:
                    raise nonfinite_error(self._run, flags)
                self._run.skipped = (0, self._run.skipped[1])
            stop = stop or bool(requested)
        return stop


def nonfinite_error(run: Run, flags: StepFlags) -> UserError:
    return UserError(
        f"{describe_nonfinite(run, flags)}. Lower the learning rate, or set train.grad_clip or train.on_nonfinite: skip"
    )


def describe_nonfinite(run: Run, flags: StepFlags) -> str:
    """The loss terms of a step that are not finite and their clips, in all processes; without any, the gradients."""
    where = f" in process {run.ranks.rank}" if run.ranks.world > 1 else ""
    bad = iter(flags.bad.tolist())
    own = [f"loss term {term}{where}" for term in flags.terms if next(bad)]
    gradients = [f"the gradient of {name}" for name in flags.gradients if next(bad)]
    terms = [line for lines in run.ranks.gather(own) for line in lines]
    return f"step {flags.step}: not finite: {'; '.join(terms or gradients)}"


def describe_clips(run: Run, i: int, batch: Batch) -> str:
    """The clips of batch ``i`` of this step, by name and position in the run."""
    size = run.batch_size
    first = run.position + (i * run.ranks.world + run.ranks.rank) * size
    return ", ".join(f"{name} (position {first + k})" for k, name in enumerate(batch.get("name", ())))


def count_bad_clips(run: Run, batches: Sequence[Batch]) -> None:
    """Count the clips that the dataset skipped (its option ``on_bad: skip``); log each file once."""
    for batch in batches:
        for line in (line for lines in batch.get("skipped", ()) for line in lines.splitlines()):
            run.bad_clips[line] += 1
            if run.bad_clips[line] == 1:
                log.warning(f"warning: skipped {line}")


def checkpoint_options(model: Spec) -> dict[str, bool]:
    """Options of a recipe that checkpoint activations → whether they are on; what saves most comes first."""
    own = {f"model.{k}": v for k, v in model.options.items() if k.startswith("checkpoint_")}
    perceptual = model.options.get("perceptual")
    if perceptual is not None and "checkpoint" in perceptual.options:
        own["model.perceptual.checkpoint"] = perceptual.options["checkpoint"]
    return own


def out_of_memory(run: Run, error: Exception) -> str:
    """An error message that names the options of this run that reduce the memory it needs."""
    config = run.config
    advice = []
    if run.batch_size > 1:
        old = config.data.batch_size or config.train.accumulate
        instead = f"data.clips_per_step: {run.clips_per_step} with " if old else ""
        advice.append(f"{instead}data.clips_at_once: {run.batch_size // 2}")
    advice += [f"{option}: true" for option, on in checkpoint_options(config.model).items() if not on]
    if config.train.amp is None:
        advice.append("train.amp: bf16")
    if (config.data.train.options.get("clip_length") or 1) > 2:
        advice.append(f"a shorter data.train.clip_length than {config.data.train.options['clip_length']}")
    size = config.data.train.options.get("size")
    advice.append(f"smaller frames than data.train.size {size}" if size else "smaller frames")
    reason = str(error).partition(". ")[0]
    return f"step {run.step + 1}: out of memory on {run.device} ({reason}). Try, in this order: {'; '.join(advice)}"


def warn_of_cpu_flow(recipe: nn.Module, device: torch.device) -> None:
    """Warn, after the first step on a GPU, of the time that flow estimators spent on the CPU in it."""
    seconds = sum(getattr(module, "cpu_seconds", 0.0) for module in recipe.modules())
    if device.type == "cuda" and seconds:
        log.warning(
            f"warning: the flow estimator runs on the CPU and took {seconds:.1f} s of the first step, in which the GPU "
            "waits; GMFlow and raft run on the GPU (set model.flow and model.net.flow)"
        )
