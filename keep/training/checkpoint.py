"""Checkpoints of a run: save weights and state, resume a run from a state.

``models/net_STEP.pth`` holds weights to use, ``training_states/STEP.state`` everything that a resume needs. A resumed
run ends in the weights of the uninterrupted run, bit for bit on a CPU, whatever the number of workers.
"""

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from keep.config.registry import dump
from keep.config.schema import TrainConfig
from keep.models.base import Recipe
from keep.training.codebook import CodeUse
from keep.training.ema import EMA
from keep.training.folder import prune, state_path, weights_path
from keep.training.run import Run
from keep.utils import weight_files
from keep.utils.credentials import without_credentials
from keep.utils.errors import UserError
from keep.utils.io import link_or_copy
from keep.utils.logging import log
from keep.utils.version import __version__

MAY_CHANGE = (
    "name", "root", "plugins", "device", "threads", "pretrained",     # where the run is, what it started from
    "data.workers", "data.prefetch", "data.train.root", "data.val",   # how and from where clips are read
    "data.clips_per_step", "data.batch_size", "train.accumulate",     # compared as clips a step
    "data.clips_at_once", "data.source_clips",
    "train.iters", "train.schedule", "train.warmup",                  # the schedule
    "train.on_nonfinite", "train.max_skipped",                        # guards
    "train.tf32", "train.channels_last", "train.fused_norms", "train.compile",  # rounding alone
    "train.optim.fused", "train.optim_d.fused",
    "model.checkpoint_decoder", "model.checkpoint_encoder", "model.perceptual.checkpoint",  # time for memory
    "val", "log",
)  # fmt: skip
"""Options that may differ between a checkpoint and the run that resumes it; a name includes everything below it."""


# --- saving -----------------------------------------------------------------------------------------------------


def save(run: Run, higher_is_better: bool | None = None) -> None:
    """Write weights and state of this step, then delete old checkpoints. All processes call it.

    Args:
        run: the run.
        higher_is_better: whether a higher validation score is better; None: scores choose nothing.
    """
    try:
        save_weights(run)
        save_state(run)
    except OSError as error:
        raise UserError(
            f"{error.filename or run.folder}: cannot write: {error.strerror or error}; the checkpoints before step "
            f"{run.step} are complete: make room, then resume with --auto-resume"
        ) from None
    if run.ranks.first:
        prune(run, higher_is_better)
    run.ranks.barrier()


def save_weights(run: Run) -> None:
    """Write ``models/net_STEP.pth`` and, if configured, the weights to use as safetensors; link ``net_latest``.

    The discriminator goes to ``models/net_d_latest.pth``, for ``pretrained.discriminator`` of another run.
    """
    if not run.ranks.first:
        return
    metadata = {
        "arch": dump(run.config.model.options.get("net")),
        "step": run.step,
        "version": __version__,
        "options": dump(run.config),
        "pretrained": dict(run.files),
    }
    weights: dict[str, Any] = {"params": run.recipe.net.state_dict()}
    if run.ema is not None:
        with run.ema.applied():
            weights["params_ema"] = {k: v.clone() for k, v in run.recipe.net.state_dict().items()}
    path = weights_path(run.folder, run.step)
    weight_files.save(path, {**weights, **metadata})
    link_or_copy(path, path.with_name("net_latest.pth"))
    if run.config.log.safetensors:
        which = list(weights)[-1]
        text = {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()}
        exported = path.with_suffix(".safetensors")
        weight_files.save_safetensors(
            exported, weights[which], {"format": "pt", "layout": "ours", "weights": which, **text}
        )
        link_or_copy(exported, path.with_name("net_latest.safetensors"))
    if run.recipe.discriminator is not None:
        content = {"params": run.recipe.discriminator.state_dict()}
        metadata["arch"] = dump(run.config.model.options.get("discriminator"))
        weight_files.save(path.with_name("net_d_latest.pth"), {**content, **metadata})


def save_state(run: Run) -> None:
    """Write ``training_states/STEP.state``: everything that the next step depends on. All processes call it."""
    codes = {name: meter.counts.cpu() for name, meter in run.meters.items()}
    own = {"random": random_state(run.device), "own": recipe_buffers(run.recipe), "codes": codes}
    processes = run.ranks.gather(own)
    if not run.ranks.first:
        return
    path = state_path(run.folder, run.step)
    weight_files.save(
        path,
        {
            "step": run.step,
            "position": run.position,
            "batch_size": run.clips_per_step,
            "recipe": recipe_state(run.recipe),
            "optimizers": {k: o.state_dict() for k, o in run.optimizers.items()},
            "ema": run.ema.state_dict() if run.ema else None,
            "scaler": run.scaler.state_dict(),
            "scores": run.scores,
            "skipped": run.skipped,
            "processes": processes,
            "options": dump(run.config),
            "pretrained": dict(run.files),
            "data": run.data,
            "version": __version__,
        },
    )
    log.info(f"saved {path}")


def recipe_state(recipe: Recipe) -> dict[str, torch.Tensor]:
    """Weights and buffers that training changes: those of the trained networks, and the recipe's buffers."""
    trained = {"net"} | {k for k, m in recipe.named_children() if any(p.requires_grad for p in m.parameters())}
    return {k: v for k, v in recipe.state_dict().items() if "." not in k or k.split(".")[0] in trained}


def recipe_buffers(recipe: Recipe) -> dict[str, torch.Tensor]:
    """Buffers of the recipe itself, not of its networks; they differ between processes."""
    return {k: v.cpu() for k, v in recipe.named_buffers(recurse=False)}


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of every generator that a step may use, as plain data."""
    kind, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "python": random.getstate(),
        "numpy": (kind, np.asarray(keys).tolist(), *rest),
    }


# --- resuming ---------------------------------------------------------------------------------------------------


def resume(run: Run, path: Path, allow_changed: bool = False) -> None:
    """Set the run to the exact state that ``path`` holds.

    Raises:
        UserError: the file is no training state, holds another network, or was written with other options that
            shape the result (unless ``allow_changed``).
    """
    state = weight_files.load(path)
    if not isinstance(state, dict) or "processes" not in state:
        raise UserError(f"--resume: {path} is not a training state; they are under training_states/")
    changed = list(differences(with_current_defaults(state["options"]), dump(run.config)))
    if not allow_changed:
        check_options(run, state, path, changed)
    if changed:
        log.info(f"resumed with changed options: {'; '.join(changed)}")
    if state["version"] != __version__:
        log.warning(f"warning: {path} was written by version {state['version']}; this is {__version__}")

    weight_files.check_fit(recipe_state(run.recipe), state["recipe"], path, type(run.recipe).__name__)
    run.recipe.load_state_dict(state["recipe"], strict=False)
    for name, optimizer in run.optimizers.items():
        restore_optimizer(optimizer, state["optimizers"][name])
    if run.ema is not None:
        run.ema = EMA(run.recipe.net, run.ema.decay)  # of the loaded weights, where the older run had no average
        if state["ema"] is not None:
            run.ema.load_state_dict(state["ema"])
    if run.scaler.is_enabled() and state["scaler"]:
        run.scaler.load_state_dict(state["scaler"])
    run.step, run.position, run.files = state["step"], state["position"], state["pretrained"]
    run.recipe.last_step = max(run.step - 1, 0)
    if not any(key.startswith(("val", "data.val", "log.best_metric")) for key in changed):  # else not comparable
        run.scores = dict(state["scores"])
    run.skipped = tuple(state["skipped"])
    if run.ranks.rank < len(state["processes"]):
        own = state["processes"][run.ranks.rank]
        run.recipe.load_state_dict(own["own"], strict=False)
        set_random_state(own["random"], run.device)
    run.meters = restore_meters(run, state["processes"])
    run.recipe.check_flows()
    log.info(f"resumed {path} at step {run.step}")


def restore_meters(run: Run, processes: Sequence[Mapping[str, Any]]) -> dict[str, CodeUse]:
    """The counted codes of this process; the first also gets those of processes that no longer exist."""
    meters: dict[str, CodeUse] = {}
    own = [n for n in range(len(processes)) if n == run.ranks.rank or (run.ranks.first and n >= run.ranks.world)]
    for number in own:
        for name, counts in processes[number].get("codes", {}).items():  # files of older versions have none
            meters.setdefault(name, CodeUse(len(counts), run.device)).counts += counts.to(run.device)
    return meters


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load moments and step counts; options such as learning rate and ``fused`` stay those of the run."""
    if len(optimizer.param_groups) != len(state["param_groups"]):
        raise UserError(
            f"--resume: the optimizer has {len(optimizer.param_groups)} groups, the checkpoint "
            f"{len(state['param_groups'])}: train.lr_scale must name the same parts"
        )
    groups = [
        {**saved, **{k: v for k, v in own.items() if k != "params"}}
        for saved, own in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({"state": state["state"], "param_groups": groups})
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():  # train.channels_last may have changed, and fused kernels ignore strides
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """The opposite of :func:`random_state`."""
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))


# --- comparing options ------------------------------------------------------------------------------------------


def check_options(run: Run, state: Mapping[str, Any], path: Path, changed: list[str]) -> None:
    """Raise UserError if options that shape the result have changed; ``changed`` is from :func:`differences`."""
    shaping = [line for line in changed if not may_change(line.partition(":")[0])]
    if state["batch_size"] != run.clips_per_step:
        shaping.append(f"clips a step, over all processes: {state['batch_size']} → {run.clips_per_step}")
    if state.get("data") and run.data and state["data"] != run.data:
        shaping.append("the training clips (their names or lengths)")
    if shaping:
        raise UserError(
            f"--resume: options that shape the result differ from those in {path}: {'; '.join(shaping)}. "
            "Set them back, start a new run, or add --allow-changed"
        )


def may_change(key: str) -> bool:
    key = re.sub(r"^data\.train\.datasets\.\d+\.", "data.train.", key)  # an option of one of several datasets
    return any(key == name or key.startswith(f"{name}.") for name in MAY_CHANGE)


def with_current_defaults(options: Any) -> Any:
    """A checkpoint's options, with today's defaults for options added since it was written."""
    train = options["data"]["train"]
    if train.get("landmarks") and "align" not in train:  # written before that option, whose default is another
        options = {**options, "data": {**options["data"], "train": {**train, "align": "before"}}}
    try:
        return dump(TrainConfig.model_validate(options))
    except ValidationError:  # an option was removed since: compare the others
        return options


def differences(before: Any, now: Any, key: str = "") -> Iterator[str]:
    """``a.b.c: before → now`` for every option that differs."""
    if isinstance(before, dict) and isinstance(now, dict) and before.get("type") == now.get("type"):
        for k in dict.fromkeys([*before, *now]):
            yield from differences(before.get(k), now.get(k), f"{key}.{k}" if key else str(k))
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for i, (a, b) in enumerate(zip(before, now, strict=True)):
            yield from differences(a, b, f"{key}.{i}")
    elif before != now:
        yield f"{key}: {format_value(before)} → {format_value(now)}"


def format_value(value: Any) -> str:
    """An option's value for a message; of a mapping only its type."""
    if isinstance(value, dict):
        return str(value.get("type", "{…}"))
    return "null" if value is None else without_credentials(str(value))
