"""Tiny training runs on any device, for tests/gpu."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import options_and_start

from keep.config.reading import load
from keep.config.schema import TrainConfig
from keep.training import trainer
from keep.training.run import build_run
from keep.utils import weight_files

STEPS = 3
# Every part of a stage acts within three steps.
PHASES = {1: ["model.gan_start=1"], 2: ["model.filter_start=1"], 3: ["model.gan_start=1"]}
TRAINED = {
    1: {"encoder", "codebook", "generator"},
    2: {"lq_encoder", "code_transformer", "kalman_filter"},
    3: {"cft", "cfa"},
}
"""Stage → parts of the network that train; all others are frozen."""
COMPILED = {
    1: "[net.encoder, net.generator, discriminator]",
    2: "[net.lq_encoder, net.hq_encoder, net.kalman_filter, net.code_transformer, net.generator]",
    3: "[net.lq_encoder, net.hq_encoder, net.kalman_filter, net.code_transformer, discriminator]",
}


def words(stage: int, clips: Path, root: Path, device: torch.device, *more: str) -> tuple[Path, list[str]]:
    """(options file, overrides) of a run of three steps."""
    quiet = ["log.image_interval=100", "log.save_interval=100", "log.safetensors=false", f"train.iters={STEPS}"]
    return options_and_start(
        stage, clips, root, f"device={device}", *quiet, *PHASES[stage], "train.warmup=0", *more
    )  # fmt: skip


def config(stage: int, clips: Path, root: Path, device: torch.device, *more: str) -> TrainConfig:
    path, overrides = words(stage, clips, root, device, *more)
    return load(path, overrides, TrainConfig)


def train(options: TrainConfig) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """Train; returns the records of its steps and the network's weights at the end."""
    folder = trainer.train(options)
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return records, weight_files.load(folder / f"models/net_{options.train.iters}.pth")["params"]


def start_of(options: TrainConfig) -> dict[str, torch.Tensor]:
    """The network's weights before the first step."""
    return {k: v.cpu().clone() for k, v in build_run(options).recipe.net.state_dict().items()}


def moved_parts(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> set[str]:
    """Parts of the network of which any tensor has changed."""
    return {k.split(".")[0] for k, v in before.items() if not torch.equal(v, after[k].cpu())}


def losses(records: list[dict[str, Any]]) -> list[dict[str, float | None]]:
    """The loss terms of each step; None is a value that is not finite."""
    return [{k: v for k, v in row.items() if k.startswith("loss/")} for row in records if any("loss" in k for k in row)]


def skip_without(device: torch.device, precision: str) -> None:
    """Skip a precision that the device does not compute in."""
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip(f"{torch.cuda.get_device_name(device)} has no bfloat16")
