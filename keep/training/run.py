"""Builds a training run: device, recipe, pretrained weights, optimizers, average."""

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn as nn

from keep.config.registry import Spec, build, build_at
from keep.config.schema import TrainConfig
from keep.models.base import Recipe
from keep.training import precision
from keep.training.codebook import CodeUse
from keep.training.distributed import Ranks
from keep.training.ema import EMA
from keep.training.pretrained import load_pretrained
from keep.training.profile import OFF, Profiler
from keep.utils.devices import prepare
from keep.utils.errors import UserError, nearest
from keep.utils.logging import log


@dataclass
class Run:
    """Everything the training loop works with.

    Attributes:
        config: the checked options.
        ranks: this process among the others.
        device: where this process computes.
        recipe: networks and losses; the trainer shares its trained networks over the processes.
        optimizers: name → optimizer; ``net`` is the network's.
        ema: average of the network's weights.
        schedule: learning rate as a function of the step.
        scaler: scales float16 losses.
        files: slot of ``pretrained`` → sha256 of its file.
        data: a hash of names and lengths of the training clips; "" if the dataset has none.
        step: steps done.
        position: clips seen by all processes: the complete state of the data.
        skipped: steps skipped for values that were not finite: in a row, and in total.
        scores: step → validation score of the metric that chooses the best weights.
        profiler: times the parts of a step.
        meters: use of the codes that the recipe reports.
        bad_clips: message about a clip that the dataset skipped → how often, since the process started.
    """

    config: TrainConfig
    ranks: Ranks
    device: torch.device
    recipe: Recipe
    optimizers: dict[str, torch.optim.Optimizer]
    ema: EMA | None
    schedule: Any
    scaler: torch.amp.GradScaler
    files: dict[str, str]
    data: str = ""
    step: int = 0
    position: int = 0
    skipped: tuple[int, int] = (0, 0)
    scores: dict[int, float] = field(default_factory=dict)
    profiler: Profiler = OFF
    meters: dict[str, CodeUse] = field(default_factory=dict)
    bad_clips: Counter[str] = field(default_factory=Counter)

    @property
    def folder(self) -> Path:
        return self.config.root / self.config.name

    @property
    def batch_size(self) -> int:
        """Clips that this process computes at once."""
        return split_step(self.config, self.ranks.world)[0]

    @property
    def batches(self) -> int:
        """Batches of this process in one step, whose gradients are averaged."""
        return split_step(self.config, self.ranks.world)[1]

    @property
    def clips_per_step(self) -> int:
        """Clips of one step, over all processes."""
        return self.batch_size * self.batches * self.ranks.world

    def due(self, interval: int) -> bool:
        """True at every ``interval``-th step and at the last step."""
        return self.step % interval == 0 or self.step == self.config.train.iters

    def spec_of(self, optimizer: str) -> Spec:
        """The options of an optimizer."""
        return self.config.train.optim if optimizer == "net" else self.config.train.optim_d

    def count_codes(self) -> None:
        """Count the codes that the recipe chose for its last batch."""
        for name, codes in self.recipe.codes.items():
            if name not in self.meters:
                self.meters[name] = CodeUse(self.recipe.codebook_size, self.device)
            self.meters[name].add(codes)


def split_step(config: TrainConfig, world: int) -> tuple[int, int]:
    """Clips that each of ``world`` processes computes at once, and the number of such batches in a step.

    Batches are of equal size, so that the mean over them is the mean over the clips of the step.

    Raises:
        UserError: the clips of a step cannot be shared equally.
    """
    data, train = config.data, config.train
    if data.batch_size is not None or train.accumulate is not None:
        return data.batch_size or 1, train.accumulate or 1
    clips = data.clips_per_step or 1
    share, rest = divmod(clips, world)
    if rest:
        fitting = [n for n in range(1, min(clips, world) + 1) if clips % n == 0]
        raise UserError(
            f"data.clips_per_step: {clips} cannot be shared by {world} processes: use a multiple of {world}, or "
            f"{' or '.join(map(str, fitting))} process{'es' * (fitting != [1])}"
        )
    most = min(share, data.clips_at_once or share)
    size = next(n for n in range(most, 0, -1) if share % n == 0)
    return size, share // size


def warn_of_old_options(config: TrainConfig, world: int) -> None:
    """Name the options that replace ``data.batch_size`` and ``train.accumulate``, where these are used."""
    if config.data.batch_size is None and config.train.accumulate is None:
        return
    size, batches = split_step(config, world)
    new = f"data.clips_per_step: {size * batches * world}" + f" and data.clips_at_once: {size}" * (batches > 1)
    log.warning(f"warning: data.batch_size and train.accumulate are deprecated; this run is {new}")


def build_run(config: TrainConfig, ranks: Ranks = Ranks(), start: bool = True) -> Run:  # noqa: B008, it is frozen
    """Build networks, losses and optimizers, equal in all processes; then seed each process differently.

    Args:
        config: the checked options.
        ranks: this process among the others; the networks are not shared over them yet.
        start: load the weights named in ``pretrained``; a resumed run does not.
    """
    split_step(config, ranks.world)
    warn_of_old_options(config, ranks.world)
    device = prepare(config.device, config.threads, config.seed, ranks.local)
    recipe: Recipe = build_at("model", config.model)
    files = load_pretrained(recipe, config) if start else {}
    if start:
        recipe.check_flows()
    recipe.to(device)
    precision.prepare_networks(recipe, config.train, device)
    precision.compile_networks(recipe, config.train.compile)
    recipe.train()
    recipe.ranks = ranks
    ema = EMA(recipe.net, config.train.ema) if config.train.ema else None
    schedule, scaler = build(config.train.schedule), precision.make_scaler(config.train, device)
    run = Run(config, ranks, device, recipe, {}, ema, schedule, scaler, files)
    run.optimizers |= {name: make_optimizer(run, name, own) for name, own in recipe.parameter_groups().items()}
    seed_all(config.seed + ranks.rank)
    return run


def seed_all(seed: int) -> None:
    """Seed every generator that a step may use: torch's, and those of a user's recipe."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def make_optimizer(run: Run, name: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer ``name``; a group's ``scale`` is a factor of its learning rate."""
    spec = run.spec_of(name)
    if "lr" not in spec.options:
        raise UserError(f"optimizer {spec.type}: it needs an option lr, the learning rate that the schedule changes")
    groups = [{"params": parameters, "scale": 1.0}]
    if name == "net":
        groups = scaled_groups(run.recipe.net, run.config.train.lr_scale)
    return spec.build()(groups)


def scaled_groups(net: nn.Module, scales: Mapping[str, float]) -> list[dict[str, Any]]:
    """The network's trained parameters as optimizer groups: each part in ``scales``, after the group of all others."""
    others = {name: p for name, p in net.named_parameters() if p.requires_grad}
    groups = []
    for part, scale in scales.items():
        own = [others.pop(name) for name in list(others) if name.split(".")[0] == part]
        if not own:
            parts = list(dict.fromkeys(name.split(".")[0] for name in others))
            hint = nearest(part, parts) or f"; parts: {', '.join(parts)}"
            raise UserError(f"train.lr_scale.{part}: no such part of the network trains in this stage{hint}")
        groups.append({"params": own, "scale": scale, "name": part})
    return [{"params": list(others.values()), "scale": 1.0, "name": ""}, *groups]


def check_data(recipe: Recipe, train: Any, val: Any) -> None:
    """Raise UserError if a dataset does not fit the recipe."""
    length = getattr(train, "clip_length", recipe.min_frames)
    if length is None:
        raise UserError("data.train.clip_length: training needs the number of frames of a clip, e.g. 8")
    if length < recipe.min_frames:
        without = ", or model.per_frame: true" if hasattr(recipe, "per_frame") or hasattr(recipe, "used") else ""
        raise UserError(
            f"data.train.clip_length: {length}, but what {type(recipe).__name__} trains needs "
            f"{recipe.min_frames} frames or more{without}"
        )
    for name, data in (("train", train), ("val", val)):
        if data is not None and recipe.needs_lq and getattr(data, "pipeline", True) is None:
            raise UserError(f"data.{name}.degradation: {type(recipe).__name__} needs degraded clips; name the steps")


def describe(run: Run) -> str:
    """The run in one line, for the log."""
    count = {k: sum(p.numel() for g in o.param_groups for p in g["params"]) for k, o in run.optimizers.items()}
    trained = ", ".join(f"{v / 1e6:.2f} M {k} parameters train" for k, v in count.items())
    world, batches, source = run.ranks.world, run.batches, run.config.data.source_clips
    shares = [f"{world} processes"] * (world > 1) + [f"{batches} batches"] * (batches > 1)
    split = f" ({' × '.join([*shares, str(run.batch_size)])})" if shares else ""
    total = f"{run.clips_per_step * run.config.train.iters:,} in the whole run"
    compared = f" (the source's: {source:,})" if source else ""
    return f"{trained}, {run.clips_per_step} clips a step{split}, {total}{compared}, on {run.device}"
