"""What keeps a run from going on wrongly: numbers that are not finite, bad clips, and a GPU that is full."""

from collections.abc import Sequence

import torch

from keep.models.base import Batch
from keep.training.run import Run
from keep.utils.errors import UserError
from keep.utils.logging import log


def is_nonfinite(
    run: Run, seen: list[tuple[str, int, torch.Tensor]], norms: dict[str, torch.Tensor], batches: Sequence[Batch]
) -> bool:
    """Whether a loss term of any process, or a gradient, is NaN or infinite, and this step must be left out.

    With float16, gradients that overflow are normal: there the scaler leaves out the step and lowers its scale. At a
    scale below 1 it was not the scale.

    Raises:
        UserError: it is, and ``train.on_nonfinite`` says stop, or it happened ``train.max_skipped`` times in a row.
    """
    values = [value for _, _, value in seen]
    if not run.scaler.is_enabled() or run.scaler.get_scale() < 1:
        values += [norm.float() for norm in norms.values()]
    bad = ~torch.isfinite(torch.stack(values))  # the order of the values is the same in all processes
    if not run.ranks.max(bad.any().float()).item():
        run.skipped = (0, run.skipped[1])
        return False
    what = "; ".join(told_nonfinite(run, seen, list(norms), bad.tolist(), batches))
    in_a_row, in_all = run.skipped[0] + 1, run.skipped[1] + 1
    message = f"step {run.step + 1}: not finite: {what}"
    if run.config.train.on_nonfinite == "stop":
        raise UserError(f"{message}. Lower the learning rate, or set train.grad_clip or train.on_nonfinite: skip")
    if in_a_row > run.config.train.max_skipped:
        raise UserError(
            f"{message}; {in_a_row} steps in a row, and train.max_skipped is {run.config.train.max_skipped}"
        )
    run.skipped = (in_a_row, in_all)
    log.warning(f"warning: {message}; left out, {in_all} so far")
    return True


def told_nonfinite(
    run: Run, seen: list[tuple[str, int, torch.Tensor]], norms: list[str], bad: list[bool], batches: Sequence[Batch]
) -> list[str]:
    """The terms and their clips, of all processes, that are not finite; where there are none, the gradients."""
    where = f" in process {run.ranks.rank}" if run.ranks.world > 1 else ""
    of_terms, of_norms = bad[: len(seen)], bad[len(seen) :]
    own = [
        f"loss term {term} of {clips_of(run, i, batches[i])}{where}"
        for (term, i, _), b in zip(seen, of_terms, strict=True)
        if b
    ]
    terms = [row for rows in run.ranks.gather(own) for row in rows]
    return terms or [f"the gradient of {name}" for name, b in zip(norms, of_norms, strict=False) if b]


def note_bad_clips(run: Run, batches: Sequence[Batch]) -> None:
    """Count the clips that the dataset passed over (its option ``on_bad: skip``); tell of each file once."""
    for batch in batches:
        for line in (line for told in batch.get("skipped", ()) for line in told.splitlines()):
            run.bad_clips[line] += 1
            if run.bad_clips[line] == 1:
                log.warning(f"warning: passed over {line}")


def out_of_memory(run: Run, error: Exception) -> str:
    """What can be turned down, in this run, when the GPU's memory is full."""
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
    first = str(error).partition(". ")[0]
    told = f"step {run.step + 1}: the memory of {run.device} is full ({first})"
    return f"{told}. Turn down, in this order: {'; '.join(advice)}"


def clips_of(run: Run, i: int, batch: Batch) -> str:
    """The clips of batch ``i`` of this step by name and position in the run, for a message."""
    options = run.config.data
    first = run.position + (i * run.ranks.world + run.ranks.rank) * options.batch_size
    return ", ".join(f"{name} (position {first + k})" for k, name in enumerate(batch.get("name", ())))
