"""The tiny options, smaller still, with a test's clips as data."""

from pathlib import Path
from typing import Any

import torch
import yaml

from keep.config.reading import load
from keep.config.schema import TrainConfig

ROOT = Path(__file__).resolve().parents[1]

NET = [
    "model.net.image_size=32", "model.net.channels=8", "model.net.ch_mult=[1, 2, 2]",
    "model.net.attn_resolutions=[8]", "model.net.latent_dim=8", "model.net.codebook_size=16",
]  # fmt: skip
KEEP_NET = [
    *NET, "model.net.transformer_width=16", "model.net.transformer_heads=2", "model.net.transformer_layers=1",
    "model.net.transformer_mlp_width=16", "model.net.kalman_head_dim=8",
    "model.net.cft_scales=[8, 16]", "model.net.cfa_scales=[8, 16]",
]  # fmt: skip
CODEFORMER = {
    "type": "CodeFormer", "image_size": 32, "channels": 8, "ch_mult": [1, 2], "res_blocks": 1, "attn_resolutions": [16],
    "latent_dim": 8, "codebook_size": 16, "transformer_width": 16, "transformer_heads": 2, "transformer_layers": 1,
    "transformer_mlp_width": 16, "cft_scales": [16],
}  # fmt: skip
PREVIOUS = {2: "vqgan", 3: "keep"}
"""Stage → the key of ``pretrained`` for the previous stage."""


def options(stage: int, clips: Path, root: Path, *more: str) -> tuple[Path, list[str]]:
    """(options file, overrides) of a run of 4 steps on 32×32 frames that starts from the previous stage in ``root``."""
    common = [
        f"root={root}", f"data.train.root={clips}", f"data.train.clip_length={1 if stage == 1 else 3}",
        "data.train.size=32", "data.workers=0", "data.clips_per_step=1", "train.iters=4", "log.interval=1",
        "log.image_interval=2", "log.save_interval=2", "data.val=null", *(NET if stage == 1 else KEEP_NET),
    ]  # fmt: skip
    if stage == 1:
        common.append("model.gan_start=2")
    else:
        common.append(f"pretrained.{PREVIOUS[stage]}={root / f'stage{stage - 1}/models/net_latest.pth'}")
    return ROOT / f"options/tiny/stage{stage}.yml", [*common, *more]


def options_and_start(stage: int, clips: Path, root: Path, *more: str) -> tuple[Path, list[str]]:
    """The same, but it starts from random weights (always the same) instead of the previous stage."""
    path, overrides = options(stage, clips, root, *more)
    if stage > 1:
        before, settings = options(stage - 1, clips, root)
        config = load(before, settings, TrainConfig)
        torch.manual_seed(0)
        target = root / f"stage{stage - 1}/models/net_latest.pth"
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"params": config.model.build().net.state_dict()}, target)
    return path, overrides


def regression(clips: Path, root: Path) -> Path:
    """A file of options for four steps of RegressionModel in ``root``; the encoder begins to train in the third."""
    data = {"type": "VideoClips", "root": str(clips), "size": 32, "degradation": ["Downsample"]}
    content = {
        "name": "regression",
        "root": str(root / "experiments"),
        "device": "cpu",
        "model": {
            "type": "RegressionModel",
            "net": CODEFORMER,
            "pixel": {"type": "Charbonnier", "eps": 1e-6},
            "part_start": {"lq_encoder": 2},
            "discriminator": {"type": "TemporalPatchGAN", "channels": 4},
            "gan": {"type": "GAN", "kind": "vanilla", "weight": 0.01},
            "gan_start": 1,
        },
        "data": {
            "train": {**data, "clip_length": 2},
            "val": {**data, "max_frames": 2},
            "workers": 0,
        },
        "train": {
            "iters": 4,
            "optim": {"lr": 1e-3},
            "lr_scale": {"lq_encoder": 0.125},
            "schedule": {"type": "CosineRestart", "periods": [2, 2], "weights": [1, 0.5], "eta_min": 1e-7},
        },
        "val": {"interval": 2, "metrics": ["PSNR"]},
        "log": {"interval": 1, "image_interval": 100, "save_interval": 1, "keep_last": 9, "best_metric": "PSNR"},
    }
    root.mkdir(parents=True, exist_ok=True)
    (root / "regression.yml").write_text(yaml.safe_dump(content))
    return root / "regression.yml"


def same(a: Any, b: Any) -> bool:
    """Equal, tensors bit by bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b
