"""The checkpoints of a run: what a resume needs to go on exactly, and which of them stay on disk.

``models/net_STEP.pth`` holds weights to use, ``training_states/STEP.state`` all that a resume needs. A resumed run
gives the weights that the uninterrupted run gives, bit for bit on a CPU, whatever the number of workers.
"""

import json
import random
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

import keep
from keep.config.reading import to_yaml
from keep.config.registry import dump
from keep.config.schema import TrainConfig
from keep.models.base import Recipe
from keep.training.distributed import Ranks
from keep.training.ema import EMA
from keep.training.run import Run
from keep.utils import weight_files
from keep.utils.errors import UserError
from keep.utils.io import link_or_copy, remove_hidden_files, write_file
from keep.utils.logging import log

MAY_CHANGE = (
    "name", "root", "plugins", "device", "threads", "pretrained",     # where the run is, what it started from
    "data.workers", "data.prefetch", "data.train.root", "data.val",   # how and from where clips are read
    "data.batch_size", "train.accumulate",                            # their product with the processes may not
    "train.iters", "train.schedule", "train.warmup",                  # the schedule
    "train.on_nonfinite", "train.max_skipped",                        # guards
    "train.tf32", "train.channels_last", "train.compile", "train.optim.fused", "train.optim_d.fused",  # rounding alone
    "model.checkpoint_decoder",                                       # time for memory
    "val", "log",
)  # fmt: skip
"""Options that may differ between a checkpoint and the run that goes on from it; a name stands for all below it."""


# --- saving -----------------------------------------------------------------------------------------------------


def save(run: Run, better: bool | None = None) -> None:
    """Write weights and state of this step, then delete the checkpoints that no longer count. All processes call it.

    Args:
        run: the run.
        better: whether a higher validation score is better; None: scores choose nothing.
    """
    save_weights(run)
    save_state(run)
    if run.ranks.first:
        prune(run, better)
    run.ranks.barrier()


def save_weights(run: Run) -> None:
    """``models/net_STEP.pth``, beside it the weights to use as safetensors; and both as ``net_latest``."""
    if not run.ranks.first:
        return
    about = {
        "arch": dump(run.config.model.options.get("net")),
        "step": run.step,
        "version": keep.__version__,
        "options": dump(run.config),
        "pretrained": dict(run.files),
    }
    weights: dict[str, Any] = {"params": run.recipe.net.state_dict()}
    if run.ema is not None:
        with run.ema.applied():
            weights["params_ema"] = {k: v.clone() for k, v in run.recipe.net.state_dict().items()}
    path = weights_path(run.folder, run.step)
    weight_files.save(path, {**weights, **about})
    link_or_copy(path, path.with_name("net_latest.pth"))
    if run.config.log.safetensors:
        which = list(weights)[-1]
        text = {k: v if isinstance(v, str) else json.dumps(v) for k, v in about.items()}
        exported = path.with_suffix(".safetensors")
        weight_files.save_safetensors(
            exported, weights[which], {"format": "pt", "layout": "ours", "weights": which, **text}
        )
        link_or_copy(exported, path.with_name("net_latest.safetensors"))


def save_state(run: Run) -> None:
    """``training_states/STEP.state``: everything that the next step depends on."""
    processes = run.ranks.gather({"random": random_state(run.device), "own": own_buffers(run.recipe)})
    if not run.ranks.first:
        return
    path = run.folder / f"training_states/{run.step}.state"
    weight_files.save(
        path,
        {
            "step": run.step,
            "position": run.position,
            "batch_size": run.batch_size,
            "recipe": recipe_state(run.recipe),
            "optimizers": {k: o.state_dict() for k, o in run.optimizers.items()},
            "ema": run.ema.state_dict() if run.ema else None,
            "scaler": run.scaler.state_dict(),
            "scores": run.scores,
            "skipped": run.skipped,
            "processes": processes,
            "options": dump(run.config),
            "pretrained": dict(run.files),
            "version": keep.__version__,
        },
    )
    log.info(f"saved {path}")


def recipe_state(recipe: Recipe) -> dict[str, torch.Tensor]:
    """Weights and buffers that training changes: of the trained networks and the recipe's own, not of its helpers."""
    trained = {"net"} | {k for k, m in recipe.named_children() if any(p.requires_grad for p in m.parameters())}
    return {k: v for k, v in recipe.state_dict().items() if "." not in k or k.split(".")[0] in trained}


def own_buffers(recipe: Recipe) -> dict[str, torch.Tensor]:
    """Buffers of the recipe itself: what this process noted, of its own clips."""
    return {k: v.cpu() for k, v in recipe.named_buffers(recurse=False)}


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of every generator a step could draw from, as plain data."""
    kind, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "python": random.getstate(),
        "numpy": (kind, np.asarray(keys).tolist(), *rest),
    }


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))


# --- what stays on disk -------------------------------------------------------------------------------------------


def weights_path(folder: Path, step: int) -> Path:
    return folder / f"models/net_{step}.pth"


def states(folder: Path) -> dict[int, Path]:
    """Step → training state, in order."""
    found = {int(p.stem): p for p in (folder / "training_states").glob("*.state") if p.stem.isdigit()}
    return dict(sorted(found.items()))


def weights(folder: Path) -> dict[int, Path]:
    """Step → weights, in order."""
    found = {p.stem.removeprefix("net_"): p for p in (folder / "models").glob("net_*.pth")}
    return dict(sorted((int(k), p) for k, p in found.items() if k.isdigit()))


def best_steps(scores: Mapping[int, float], better: bool | None, count: int) -> list[int]:
    """The steps with the ``count`` best scores, the best first, the older of two equal ones."""
    if better is None:
        return []
    known = [s for s, value in scores.items() if value == value]
    return sorted(known, key=lambda s: (-scores[s] if better else scores[s], s))[:count]


def prune(run: Run, better: bool | None) -> None:
    """Keep the newest states and weights and the best weights; ``net_best`` becomes the best of all."""
    there, last = weights(run.folder), run.config.log.keep_last
    best = best_steps({s: v for s, v in run.scores.items() if s in there}, better, run.config.log.keep_best)
    for path in list(states(run.folder).values())[:-last]:
        path.unlink()
    for step in list(there)[:-last]:
        if step not in best:
            there[step].unlink()
            there[step].with_suffix(".safetensors").unlink(missing_ok=True)
    for path in (weights_path(run.folder, s) for s in best[:1]):
        link(path, "net_best")


def link(path: Path, name: str) -> None:
    """``models/NAME.pth`` and ``.safetensors`` become the weights at ``path``, as far as those are there."""
    for source in (path, path.with_suffix(".safetensors")):
        target = path.with_name(name + source.suffix)
        if source.exists():
            link_or_copy(source, target)
        else:
            target.unlink(missing_ok=True)


# --- resuming -----------------------------------------------------------------------------------------------------


def find(config: TrainConfig, resume: str | None, ranks: Ranks) -> Path | None:
    """The ``.state`` file that ``resume`` means, the same in all processes; None to start afresh.

    ``auto`` is the newest whole one of the run's folder: a damaged one is told and passed over.
    """
    if resume is None or resume != "auto":
        return Path(resume) if resume else None
    path = None
    if ranks.first:
        for candidate in reversed(states(config.root / config.name).values()):
            if what := unreadable(candidate):
                log.warning(f"warning: {candidate} is not whole ({what}); looking for an older one")
            else:
                path = candidate
                break
    return ranks.broadcast(path)


def unreadable(path: Path) -> str:
    """What is wrong with a state file, ``""`` when it can be resumed from."""
    try:
        if not (what := weight_files.damage(path)):
            weight_files.load(path)
        return what
    except UserError as error:
        return str(error)


def restore(run: Run, path: Path, allow_changed: bool = False) -> None:
    """Go on exactly where ``path`` was written.

    Raises:
        UserError: no training state, another network, or options that shape the result have changed.
    """
    state = weight_files.load(path)
    if not isinstance(state, dict) or "processes" not in state:
        raise UserError(f"--resume: {path} is not a training state; they are under training_states/")
    changed = list(differences(written_options(state["options"]), dump(run.config)))
    shaping = [k for k in changed if not may_change(k.partition(":")[0])]
    if state["batch_size"] != run.batch_size:
        shaping.append(f"clips a step (batch_size × accumulate × processes): {state['batch_size']} → {run.batch_size}")
    if shaping and not allow_changed:
        raise UserError(
            f"--resume: these options shape the result and are not those {path} was written with: "
            f"{'; '.join(shaping)}. Set them back, start a new run, or say --allow-changed"
        )
    if changed:
        log.info(f"resumed with changed options: {'; '.join(changed)}")
    if state["version"] != keep.__version__:
        log.warning(f"warning: {path} was written by version {state['version']}; this is {keep.__version__}")

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
    judged = ("val", "data.val", "log.best_metric")
    if not any(key.startswith(judged) for key in changed):  # or the older scores are not comparable
        run.scores = dict(state["scores"])
    run.skipped = tuple(state["skipped"])
    if run.ranks.rank < len(state["processes"]):
        own = state["processes"][run.ranks.rank]
        run.recipe.load_state_dict(own["own"], strict=False)
        set_random_state(own["random"], run.device)
    log.info(f"resumed {path} at step {run.step}")


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Its moments and steps; the options that belong to the run (learning rate, fused) stay the run's."""
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


def may_change(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in MAY_CHANGE)


def written_options(options: Any) -> Any:
    """A checkpoint's options with today's defaults for options that are newer than it."""
    try:
        return dump(TrainConfig.model_validate(options))
    except ValidationError:  # an option has gone since: compare what is there
        return options


def differences(before: Any, now: Any, key: str = "") -> Iterator[str]:
    """``a.b.c: before → now`` for every option that is not the same."""
    if isinstance(before, dict) and isinstance(now, dict) and before.get("type") == now.get("type"):
        for k in dict.fromkeys([*before, *now]):
            yield from differences(before.get(k), now.get(k), f"{key}.{k}" if key else str(k))
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for i, (a, b) in enumerate(zip(before, now, strict=True)):
            yield from differences(a, b, f"{key}.{i}")
    elif before != now:
        yield f"{key}: {shortly(before)} → {shortly(now)}"


def shortly(value: Any) -> str:
    """An option's value for a message; of a mapping its type."""
    if isinstance(value, dict):
        return str(value.get("type", "{…}"))
    return "null" if value is None else str(value)


# --- the folder ---------------------------------------------------------------------------------------------------


def open_folder(run: Run, fresh: bool) -> None:
    """The run's folder, with the resolved options in it; an older run of that name is moved aside."""
    if run.ranks.first:
        folder = run.folder
        stamp = f"{datetime.now():%Y%m%d_%H%M%S_%f}"
        if fresh and folder.exists():
            aside = folder.with_name(f"{folder.name}_archived_{stamp}")
            folder.rename(aside)
            log.info(f"{folder} was there already; it is now {aside}")
        folder.mkdir(parents=True, exist_ok=True)
        for part in ("models", "training_states"):
            remove_hidden_files(folder / part)
        leave_later_steps(folder, run.step, stamp)
        write_file(folder / "options.yml", to_yaml(run.config))
    run.ranks.barrier()


def leave_later_steps(folder: Path, step: int, stamp: str) -> None:
    """A run that goes on from ``step`` takes another way from there: what came later is moved out of its way."""
    later = [p for s, p in [*states(folder).items(), *weights(folder).items()] if s > step]
    if not later:
        return
    aside = folder / f"left_{stamp}"
    aside.mkdir()
    for path in later:
        for own in (path, path.with_suffix(".safetensors")):
            if own.exists():
                own.rename(aside / own.name)
    log.info(f"going on from step {step}; the later checkpoints are now in {aside}")
    if left := list(weights(folder).values()):
        link(left[-1], "net_latest")
    for path in (folder / "models").glob("net_best.*"):  # the next checkpoint links it anew
        path.unlink()
