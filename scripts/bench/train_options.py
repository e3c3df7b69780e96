"""The runs of scripts/bench/train.py: option files, speed options, batches."""

import argparse
import atexit
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from keep.config.reading import load
from keep.config.schema import TrainConfig
from keep.training.run import split_step
from keep.utils import weight_files
from keep.utils.devices import pick_device
from scripts.bench.common import moving_clip

OPTIONS = Path(__file__).resolve().parents[2] / "options"
FILES = {
    "tiny": {n: OPTIONS / f"tiny/stage{n}.yml" for n in (1, 2, 3)},
    "released": {
        n: OPTIONS / f"train/{name}.yml" for n, name in enumerate(("stage1_vqgan", "stage2_kalman", "stage3_video"), 1)
    },
}
PLAIN = [
    "train.amp=null", "train.tf32=false", "train.channels_last=false", "train.compile=[]",
    "train.fused_norms=false", "train.optim.fused=false", "train.optim_d.fused=false",
]  # fmt: skip
COMPILED = {
    1: ["net.encoder", "net.generator", "discriminator"],
    2: ["net.lq_encoder", "net.hq_encoder", "net.kalman_filter", "net.code_transformer", "net.generator"],
    3: ["net.lq_encoder", "net.hq_encoder", "net.kalman_filter", "net.code_transformer", "discriminator"],
}
"""Stage → parts that the option ``compile`` compiles."""


def choices(stage: int, device: torch.device | None) -> dict[str, list[str]]:
    """Name of a speed option → its overrides; those that the stage and the device have (None: any device)."""
    compiled = [f"train.compile=[{', '.join(COMPILED[stage])}]"]
    fused = ["train.optim.fused=true", "train.optim_d.fused=true"]
    half, last, norms = ["train.amp=bf16"], ["train.channels_last=true"], ["train.fused_norms=true"]
    found = {
        "frozen": [],  # frozen parts stay outside autograd; compared with the naive step
        "channels_last": last,
        "fused": fused,
        "bf16": half,
        "fp16": ["train.amp=fp16"],
        "tf32": ["train.tf32=true"],
        "compile": compiled,
        "checkpointing": ["model.checkpoint_decoder=true"],
        "bf16+channels_last": [*half, *last],
        "bf16+channels_last+norms": [*half, *last, *norms],
        "bf16+compile+channels_last": [*half, *compiled, *last, *norms],
    }
    if device is not None and device.type == "cpu":
        for name in ("fp16", "tf32", "bf16+channels_last+norms"):
            del found[name]
    if stage != 3:
        for name in ("frozen", "checkpointing"):
            del found[name]
    return found


def options(args: argparse.Namespace, stage: int, *more: str) -> TrainConfig:
    """The shipped options at the size of ``args``, every speed option off, the adversarial terms on, then ``more``."""
    changes = [*PLAIN, "data.val=null", f"device={args.device}", f"threads={args.threads}"]
    if stage != 2:
        changes.append("model.gan_start=0")
    if stage == 3:
        changes.append("model.checkpoint_decoder=false")
    if args.size == "released" and stage != 2:
        changes.append(f"model.perceptual.weights={random_vgg()}")
    if stage > 1:
        flow = args.flow or ("dis" if pick_device(args.device).type == "cpu" else "GMFlow")
        if flow == "GMFlow":
            flow = "{type: GMFlow, random_weights: true}"
        changes += [f"model.net.flow={flow}", *([f"model.flow={flow}"] if stage == 3 else [])]
    if args.image_size:
        changes += sizes(args.image_size, stage, load(FILES[args.size][stage], [], TrainConfig))
    if args.frames and stage > 1:
        changes.append(f"data.train.clip_length={args.frames}")
    if args.batch:
        changes.append(f"data.clips_per_step={args.batch}")
    return load(FILES[args.size][stage], [*changes, *more, *args.set], TrainConfig)


@cache
def random_vgg() -> Path:
    """A file of random VGG16 weights for the perceptual term: its time does not depend on them."""
    from torchvision.models import vgg16

    folder = tempfile.TemporaryDirectory(prefix="bench_train_")
    atexit.register(folder.cleanup)
    path = Path(folder.name) / "vgg16_random.pth"
    features = vgg16(weights=None).features.state_dict()
    weight_files.save(path, {f"features.{k}": v for k, v in features.items()})
    return path


def sizes(side: int, stage: int, config: TrainConfig) -> list[str]:
    """Overrides for frames of ``side`` pixels: the sizes at which the network attends and fuses scale with them."""
    net = config.model.options["net"].options

    def scaled(name: str) -> str:
        return f"model.net.{name}={[n * side // net['image_size'] for n in net[name]]}"

    names = ("attn_resolutions",) if stage == 1 else ("attn_resolutions", "cft_scales", "cfa_scales")
    return [f"model.net.image_size={side}", f"data.train.size={side}", *map(scaled, names)]


def batch_of(config: TrainConfig, device: torch.device) -> dict[str, Any]:
    """A moving texture with the shape of the run's batches."""
    data = config.data.train.options
    gt = moving_clip(split_step(config, 1)[0], data["clip_length"], data["size"])
    lq = F.interpolate(gt.flatten(0, 1), scale_factor=0.25, mode="area").unflatten(0, gt.shape[:2])
    return {"gt": gt.to(device), "lq": lq.to(device), "name": ["synthetic"] * len(gt)}
