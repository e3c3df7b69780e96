"""The one training loop, for all stages and for recipes of your own."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

import keep
from keep import checkpoint
from keep.config import TrainConfig, to_yaml
from keep.data.frames import to_float, to_uint8
from keep.data.sampler import make_loader
from keep.degradation.pipeline import Pipeline
from keep.ema import EMA
from keep.errors import UserError, nearest
from keep.evaluate import evaluate
from keep.logger import Progress, RunLog, log
from keep.models.base import Recipe
from keep.registry import build, dump
from keep.runtime import prepare
from keep.visual import side_by_side

OPTIMIZERS = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}


@dataclass
class Run:
    """What the loop works with."""

    config: TrainConfig
    device: torch.device
    recipe: Recipe
    optimizers: dict[str, torch.optim.Optimizer]
    ema: EMA | None
    schedule: Any
    step: int = 0

    @property
    def folder(self) -> Path:
        return self.config.root / self.config.name


def train(config: TrainConfig, resume: str | None = None) -> Path:
    """Train one stage from its options; returns the run's folder.

    Args:
        config: the checked options.
        resume: ``"auto"`` (the newest checkpoint of the run's folder, if any) or a ``.state`` file; None starts
            afresh, and an older run of the same name is moved aside.
    """
    state = find_state(config, resume)
    run = build_run(config, start=state is None)
    data = build(config.data.train)
    val_data = build(config.data.val)
    check_data(run.recipe, data, val_data)
    metrics = build(config.val.metrics)
    if state is not None:
        restore_state(run, state)
    total, options = config.train.iters, config.data
    loader = make_loader(
        data, config.seed, options.batch_size, workers=options.workers, start=run.step, stop=total
    )  # fmt: skip

    open_folder(run, fresh=state is None)
    records = RunLog(run.folder, run.step)
    progress = Progress(config.name, total, run.step)
    log.info(f"{config.name}: {describe(run)}, {len(data)} clips, on {run.device}")
    try:
        for batch, waited in timed(loader):
            begun = time.perf_counter()
            values = train_step(run, to_device(batch, run.device))
            run.step += 1
            step = run.step
            lr = run.optimizers["net"].param_groups[0]["lr"]
            shown = {k: v.item() for k, v in values.items()} if due(step, config.log.interval, total) else None
            timing = progress.step(step, waited, time.perf_counter() - begun, shown, lr)
            if shown is not None:
                stats = {k: float(v) for k, v in run.recipe.stats.items()}
                records.scalars(step, {**{f"loss/{k}": v for k, v in shown.items()}, "lr": lr, **stats, **timing})
            if due(step, config.log.image_interval, total):
                records.clip("train", step, preview(run, batch))
            if due(step, config.log.save_interval, total):
                save_state(run)
            if val_data is not None and due(step, config.val.interval, total):
                validate(run, val_data, metrics, records)
    except KeyboardInterrupt:
        log.info(f"stopped at step {run.step}; --resume goes on from the newest checkpoint in {run.folder}")
        raise
    finally:
        progress.close()
        records.close()
    return run.folder


def due(step: int, interval: int, total: int) -> bool:
    """Whether something done every ``interval`` steps, and at the end, is done after step ``step`` (from 1)."""
    return step % interval == 0 or step == total


def train_step(run: Run, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One step of every optimizer; returns the weighted loss terms."""
    for optimizer, options in optimizer_options(run):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(run, options.lr) * group["scale"]
    values: dict[str, torch.Tensor] = {}
    for name, terms in run.recipe.losses(batch, run.step):
        loss = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(loss):
            bad = [k for k, v in terms.items() if not torch.isfinite(v)]
            raise UserError(f"step {run.step}: the loss is not finite; terms: {', '.join(bad) or 'their sum'}")
        optimizer = run.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if run.config.train.grad_clip is not None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, run.config.train.grad_clip)
        optimizer.step()
        values |= {k: v.detach() for k, v in terms.items()}
    if run.ema is not None:
        run.ema.update()
    return values


def learning_rate(run: Run, base: float) -> float:
    options = run.config.train
    rate = run.schedule(base, run.step, options.iters)
    return rate * min(1.0, (run.step + 1) / (options.warmup + 1))


def optimizer_options(run: Run) -> Iterator[tuple[torch.optim.Optimizer, Any]]:
    options = run.config.train
    for name, optimizer in run.optimizers.items():
        yield optimizer, options.optim if name == "net" else options.optim_d


def timed(loader: Any) -> Iterator[tuple[dict[str, Any], float]]:
    """Batches, each with the seconds spent waiting for it."""
    batches = iter(loader)
    while True:
        start = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - start


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, torch.Tensor]:
    """The batch's tensors on the device; uint8 frames become float in [-1, 1] there."""
    moved = {k: v.to(device, non_blocking=True) for k, v in batch.items() if isinstance(v, torch.Tensor)}
    return {k: to_float(v) if v.dtype == torch.uint8 else v for k, v in moved.items()}


# --- building -------------------------------------------------------------------------------------------------


def build_run(config: TrainConfig, start: bool = True) -> Run:
    """Networks, losses, optimizers. ``start``: fill the recipe from ``pretrained`` (a resumed run does not)."""
    device = prepare(config.device, config.threads, config.seed)
    recipe: Recipe = config.model.build()
    if start:
        load_pretrained(recipe, config)
    recipe.to(device)
    options = config.train
    optimizers = {}
    for name, parameters in recipe.parameter_groups().items():
        o = options.optim if name == "net" else options.optim_d
        groups = (
            scaled_groups(recipe.net, options.lr_scale) if name == "net" else [{"params": parameters, "scale": 1.0}]
        )
        optimizers[name] = OPTIMIZERS[o.type](groups, lr=o.lr, betas=o.betas, weight_decay=o.weight_decay)
    ema = EMA(recipe.net, options.ema) if options.ema else None
    return Run(config, device, recipe, optimizers, ema, build(options.schedule))


def scaled_groups(net: torch.nn.Module, scales: Mapping[str, float]) -> list[dict[str, Any]]:
    """The network's trained parameters as optimizer groups: the parts named in ``scales``, then the rest."""
    left = {name: p for name, p in net.named_parameters() if p.requires_grad}
    groups = []
    for part, scale in scales.items():
        own = [left.pop(name) for name in list(left) if name.split(".")[0] == part]
        if not own:
            parts = list(dict.fromkeys(name.split(".")[0] for name in left))
            hint = nearest(part, parts) or f"; parts: {', '.join(parts)}"
            raise UserError(f"train.lr_scale.{part}: no such part of the network trains in this stage{hint}")
        groups.append({"params": own, "scale": scale})
    return [{"params": list(left.values()), "scale": 1.0}, *groups]


def load_pretrained(recipe: Recipe, config: TrainConfig) -> None:
    """Fill the recipe's slots from the files named in ``pretrained``.

    Raises:
        UserError: an unknown slot, a required slot with no file, a file of another network.
    """
    slots = recipe.slots()
    for name in config.pretrained:
        if name not in slots:
            hint = nearest(name, slots) or f"; known: {', '.join(slots) or 'none'}"
            raise UserError(f"pretrained.{name}: {config.model.type} has no such part{hint}")
    for name, slot in slots.items():
        path = config.pretrained.get(name)
        if path is None and slot.required:
            raise UserError(
                f"{config.model.type} needs {slot.what}, and no file is named: set pretrained.{name} to its checkpoint"
            )
        if path is None:
            continue
        if not path.is_file():
            raise UserError(
                f"{config.model.type} needs {slot.what}, but there is no file {path}: "
                f"train that stage first, or set pretrained.{name} to its checkpoint"
            )
        state, which = checkpoint.network_state(checkpoint.load(path), path)
        slot.fill(state, path)
        log.info(f"pretrained.{name}: {which} of {path}")


def check_data(recipe: Recipe, train: Any, val: Any) -> None:
    """Raise UserError where a dataset cannot feed the recipe."""
    if getattr(train, "clip_length", 1) is None:
        raise UserError("data.train.clip_length: training needs the number of frames of a clip, e.g. 8")
    for name, data in (("train", train), ("val", val)):
        if data is not None and recipe.needs_lq and getattr(data, "pipeline", True) is None:
            raise UserError(f"data.{name}.degradation: {type(recipe).__name__} needs degraded clips; name the steps")


def describe(run: Run) -> str:
    count = {k: sum(p.numel() for g in o.param_groups for p in g["params"]) for k, o in run.optimizers.items()}
    return ", ".join(f"{v / 1e6:.2f} M {k} parameters train" for k, v in count.items())


# --- checkpoints of a run ---------------------------------------------------------------------------------------


def save_state(run: Run) -> None:
    """``models/net_STEP.pth`` (weights to use) and ``training_states/STEP.state`` (all that a resume needs)."""
    models, states = run.folder / "models", run.folder / "training_states"
    weights: dict[str, Any] = {"params": run.recipe.net.state_dict()}
    if run.ema is not None:
        with run.ema.applied():
            weights["params_ema"] = {k: v.clone() for k, v in run.recipe.net.state_dict().items()}
    net = run.config.model.options.get("net")
    about = {"arch": dump(net), "step": run.step, "version": keep.__version__}
    checkpoint.save(models / f"net_{run.step}.pth", {**weights, **about})
    checkpoint.save(
        states / f"{run.step}.state",
        {
            "step": run.step,
            "recipe": recipe_state(run.recipe),
            "optimizers": {k: o.state_dict() for k, o in run.optimizers.items()},
            "ema": run.ema.state_dict() if run.ema else None,
            "rng": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state(run.device) if run.device.type == "cuda" else None,
            "options": dump(run.config),
            "version": keep.__version__,
        },
    )
    latest = models / f"net_{run.step}.pth"
    checkpoint.copy(latest, models / "net_latest.pth")
    for old in sorted(_steps(states, "*.state"))[: -run.config.log.keep_last]:
        (states / f"{old}.state").unlink()
        (models / f"net_{old}.pth").unlink(missing_ok=True)
    log.info(f"saved {latest}")


def recipe_state(recipe: Recipe) -> dict[str, torch.Tensor]:
    """Weights and buffers that training changes: the networks and the recipe's own, not its frozen helpers'."""
    return {k: v for k, v in recipe.state_dict().items() if k.startswith(("net.", "discriminator.")) or "." not in k}


def flat(options: Any, prefix: str = "") -> dict[str, Any]:
    """Nested options as ``a.b.c`` → value."""
    if isinstance(options, dict):
        return {k: v for key, inner in options.items() for k, v in flat(inner, f"{prefix}{key}.").items()}
    return {prefix[:-1]: options}


def _steps(folder: Path, pattern: str) -> list[int]:
    return [int(p.stem) for p in folder.glob(pattern) if p.stem.isdigit()]


def find_state(config: TrainConfig, resume: str | None) -> Path | None:
    """The ``.state`` file that ``resume`` means; None to start afresh."""
    if resume is None:
        return None
    if resume != "auto":
        return Path(resume)
    folder = config.root / config.name / "training_states"
    steps = _steps(folder, "*.state")
    return folder / f"{max(steps)}.state" if steps else None


def restore_state(run: Run, path: Path) -> None:
    """Continue exactly where ``path`` was written."""
    state = checkpoint.load(path)
    if not isinstance(state, dict) or "optimizers" not in state:
        raise UserError(f"--resume: {path} is not a training state; they are under training_states/")
    checkpoint.check_fit(recipe_state(run.recipe), state["recipe"], path, type(run.recipe).__name__)
    run.recipe.load_state_dict(state["recipe"], strict=False)
    changed = [k for k, v in flat(dump(run.config)).items() if flat(state["options"]).get(k, v) != v]
    if changed:
        log.warning(f"warning: resumed with other options than {path} was written with: {', '.join(changed)}")
    for name, optimizer in run.optimizers.items():
        optimizer.load_state_dict(state["optimizers"][name])
    if run.ema is not None:
        run.ema = EMA(run.recipe.net, run.ema.decay)  # of the loaded weights, where the older run had no average
        if state["ema"] is not None:
            run.ema.load_state_dict(state["ema"])
    torch.set_rng_state(state["rng"])
    if run.device.type == "cuda" and state["rng_cuda"] is not None:
        torch.cuda.set_rng_state(state["rng_cuda"], run.device)
    run.step = state["step"]
    if run.step >= run.config.train.iters:
        raise UserError(f"--resume: {path} is at step {run.step}, and train.iters is {run.config.train.iters}")
    log.info(f"resumed {path} at step {run.step}")


def open_folder(run: Run, fresh: bool) -> None:
    """The run's folder, with the resolved options in it; an older run of that name is moved aside."""
    folder = run.folder
    stamp = f"{datetime.now():%Y%m%d_%H%M%S_%f}"
    if fresh and folder.exists():
        aside = folder.with_name(f"{folder.name}_archived_{stamp}")
        folder.rename(aside)
        log.info(f"{folder} was there already; it is now {aside}")
    folder.mkdir(parents=True, exist_ok=True)
    if not fresh:
        leave_later_steps(folder, run.step, stamp)
    temporary = folder / ".options.yml"
    temporary.write_text(to_yaml(run.config), encoding="utf-8")
    temporary.replace(folder / "options.yml")


def leave_later_steps(folder: Path, step: int, stamp: str) -> None:
    """A run that resumes from ``step`` takes another way from there: what came later is moved out of its way."""
    later = [s for s in _steps(folder / "training_states", "*.state") if s > step]
    if later:
        aside = folder / f"left_{stamp}"
        aside.mkdir()
        for s in later:
            for path in (folder / f"training_states/{s}.state", folder / f"models/net_{s}.pth"):
                if path.exists():
                    path.rename(aside / path.name)
        log.info(f"resumed from step {step}; the later checkpoints are now in {aside}")
    records = folder / "log.jsonl"
    if records.exists():
        kept = [line for line in records.read_text(encoding="utf-8").splitlines() if json.loads(line)["step"] <= step]
        temporary = folder / ".log.jsonl"
        temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        temporary.replace(records)


# --- looking ------------------------------------------------------------------------------------------------


@torch.no_grad()
def preview(run: Run, batch: dict[str, Any]) -> np.ndarray:
    """The batch's first clip, side by side: input, output, ground truth. uint8 (T, H, W, 3)."""
    first = {k: v[:1] for k, v in batch.items() if isinstance(v, torch.Tensor)}
    source = first.get("lq", first["gt"])
    output = to_uint8(run.recipe.restore(to_float(source.to(run.device)))).cpu()
    panels = {"input": source, "output": output, "truth": first["gt"]}
    return np.stack(list(side_by_side({k: v[0].permute(0, 2, 3, 1).numpy() for k, v in panels.items()})))


def validate(run: Run, dataset: Any, metrics: Any, records: RunLog) -> None:
    """Score the validation clips with the averaged weights where there are any, and log which were used."""

    def restorer(frames: torch.Tensor) -> torch.Tensor:
        return run.recipe.restore(frames[None])[0]

    def show(i: int, name: str, panels: Any) -> None:
        if i == 0:
            frames = {k: v.permute(0, 2, 3, 1).numpy()[:16] for k, v in panels.items()}
            records.clip("val", run.step, np.stack(list(side_by_side(frames))))

    which = "ema" if run.ema is not None else "online"
    run.recipe.eval()
    if run.ema is not None:
        with run.ema.applied():
            table = evaluate({which: restorer}, dataset, metrics, run.device, on_clip=show, title="validation")
    else:
        table = evaluate({which: restorer}, dataset, metrics, run.device, on_clip=show, title="validation")
    run.recipe.train()
    scores = {f"val/{m.name} ({which})": table.mean(which, m.name) for m in metrics}
    records.scalars(run.step, scores)
    log.info(f"step {run.step}  " + "  ".join(f"{k} {v:.4f}" for k, v in scores.items()))


# --- dry run --------------------------------------------------------------------------------------------------

CPU_DRY_FRAMES = 2
"""On a CPU a dry run takes one clip of so many frames: enough for every part of the recurrence."""


def dry_run(config: TrainConfig) -> None:
    """Build everything and run one step of every phase; write nothing."""
    run = build_run(config)
    log.info(f"dry run of {config.name}: {describe(run)}, on {run.device}")
    data = build_or_warn(config.data.train, "data.train")
    check_data(run.recipe, data, build_or_warn(config.data.val, "data.val"))
    metrics = build(config.val.metrics)
    batch = dry_batch(config, data, run.device)
    for phase, step in run.recipe.phases().items():
        run.step = step
        start = time.perf_counter()
        values = train_step(run, batch)
        terms = "  ".join(f"{k} {v.item():.4g}" for k, v in values.items())
        log.info(f"  {phase} (step {step}): {terms}  ({time.perf_counter() - start:.1f} s)")
    start = time.perf_counter()
    with torch.no_grad():
        output = to_uint8(run.recipe.restore(batch.get("lq", batch["gt"])[:1, :2]))[0]
    scores = {m.name: float(m(output, to_uint8(batch["gt"][0, :2])).mean()) for m in metrics}
    terms = "  ".join(f"{k} {v:.4g}" for k, v in scores.items())
    log.info(f"  validation: {terms}  ({time.perf_counter() - start:.1f} s)")
    log.info("dry run passed; nothing was written")


def dry_batch(config: TrainConfig, data: Any, device: torch.device) -> dict[str, torch.Tensor]:
    """The run's first batch; without ``data``, noise of the same shapes."""
    if data is None:
        log.info("  the steps below run on made-up clips")
        data = MadeUpClips(config.data.train.options)
    count = config.data.batch_size if device.type != "cpu" else 1
    batch = default_collate([data[config.seed, i] for i in range(count)])
    if device.type == "cpu":
        log.info(f"  on a CPU: one clip, of at most {CPU_DRY_FRAMES} frames")
        batch = {k: v[:, :CPU_DRY_FRAMES] for k, v in batch.items() if isinstance(v, torch.Tensor)}
    return to_device(batch, device)


def build_or_warn(spec: Any, where: str) -> Any:
    """The dataset; None, and a warning line, where its root is not on this machine."""
    root = spec.options.get("root") if spec is not None else None
    if root is not None and not Path(root).expanduser().exists():
        log.warning(f"warning: {where}.root: there is no {root}; a real run will not start")
        return None
    return build(spec)


class MadeUpClips:
    """Noise in the shape of a dataset's samples, through its real degradation.

    Args:
        options: the dataset's options (``size``, ``clip_length``, ``degradation``).
    """

    def __init__(self, options: Any) -> None:
        self.size, self.length = options.get("size") or 512, options.get("clip_length") or CPU_DRY_FRAMES
        self.steps = build(options.get("degradation") or ())

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        rng = np.random.default_rng(key)
        clip = rng.integers(0, 256, (self.length, self.size, self.size, 3), dtype=np.uint8)
        sample: dict[str, Any] = {"gt": torch.from_numpy(clip).permute(0, 3, 1, 2)}
        if self.steps:
            sample["lq"] = torch.from_numpy(Pipeline(self.steps)(clip, rng)[0]).permute(0, 3, 1, 2)
        return sample
