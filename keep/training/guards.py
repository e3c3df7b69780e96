"""Guards of a run: gradient clipping, values that are not finite, bad clips, and a GPU out of memory."""

from collections.abc import Sequence

import torch
import torch.nn as nn

from keep.models.base import Batch
from keep.training.run import Run
from keep.utils.errors import UserError
from keep.utils.logging import log

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


def must_skip(run: Run, values: Values, norms: dict[str, torch.Tensor], batches: Sequence[Batch]) -> bool:
    """Whether a loss term or a gradient is NaN or infinite in any process, so that this step must be skipped.

    With float16, gradients that overflow are normal: the scaler skips the step and lowers its scale. Below a scale of
    1 the scale was not the cause.

    Raises:
        UserError: it is, and ``train.on_nonfinite`` is ``stop`` or more than ``train.max_skipped`` steps in a row were
            skipped.
    """
    numbers = [value for _, _, value in values]
    if not run.scaler.is_enabled() or run.scaler.get_scale() < 1:
        numbers += [norm.float() for norm in norms.values()]
    bad = ~torch.isfinite(torch.stack(numbers))  # in the same order in all processes
    if not run.ranks.max(bad.any().float()).item():
        run.skipped = (0, run.skipped[1])
        return False
    what = "; ".join(describe_nonfinite(run, values, list(norms), bad.tolist(), batches))
    in_a_row, total = run.skipped[0] + 1, run.skipped[1] + 1
    message = f"step {run.step + 1}: not finite: {what}"
    if run.config.train.on_nonfinite == "stop":
        raise UserError(f"{message}. Lower the learning rate, or set train.grad_clip or train.on_nonfinite: skip")
    if in_a_row > run.config.train.max_skipped:
        raise UserError(
            f"{message}; {in_a_row} steps in a row, and train.max_skipped is {run.config.train.max_skipped}"
        )
    run.skipped = (in_a_row, total)
    log.warning(f"warning: {message}; skipped this step ({total} so far)")
    return True


def describe_nonfinite(
    run: Run, values: Values, norms: list[str], bad: list[bool], batches: Sequence[Batch]
) -> list[str]:
    """The terms that are not finite and their clips, in all processes; without any, the gradients.

    Args:
        run: the run.
        values: the loss terms.
        norms: names of the optimizers.
        bad: of each value, then of each optimizer's norm, whether it is not finite.
        batches: those of this step.
    """
    where = f" in process {run.ranks.rank}" if run.ranks.world > 1 else ""
    own = [
        f"loss term {term} of {describe_clips(run, i, batches[i])}{where}"
        for (term, i, _), is_bad in zip(values, bad[: len(values)], strict=True)
        if is_bad
    ]
    terms = [line for lines in run.ranks.gather(own) for line in lines]
    bad_norms = bad[len(values) :]
    return terms or [f"the gradient of {name}" for name, is_bad in zip(norms, bad_norms, strict=False) if is_bad]


def describe_clips(run: Run, i: int, batch: Batch) -> str:
    """The clips of batch ``i`` of this step, by name and position in the run."""
    size = run.config.data.batch_size
    first = run.position + (i * run.ranks.world + run.ranks.rank) * size
    return ", ".join(f"{name} (position {first + k})" for k, name in enumerate(batch.get("name", ())))


def count_bad_clips(run: Run, batches: Sequence[Batch]) -> None:
    """Count the clips that the dataset skipped (its option ``on_bad: skip``); log each file once."""
    for batch in batches:
        for line in (line for lines in batch.get("skipped", ()) for line in lines.splitlines()):
            run.bad_clips[line] += 1
            if run.bad_clips[line] == 1:
                log.warning(f"warning: skipped {line}")


def out_of_memory(run: Run, error: Exception) -> str:
    """An error message that names the options of this run that reduce the memory it needs."""
    config, model = run.config, run.config.model.options
    advice = []
    if config.data.batch_size > 1:
        half = config.data.batch_size // 2
        advice.append(f"data.batch_size {half} with train.accumulate {config.train.accumulate * 2}")
    if config.train.amp is None:
        advice.append("train.amp: bf16")
    if model.get("checkpoint_decoder") is False:
        advice.append("model.checkpoint_decoder: true")
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
            "waits; GMFlow and raft run on the GPU (options flow and net.flow of the model)"
        )
