"""Small networks with known weights, and clips for them."""

from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from rule import weight

from keep.archs.keep import KEEP
from keep.archs.public import from_public, to_public
from keep.config.registry import ARCHS
from keep.inference.weights import save_safetensors

SMALL = {
    "image_size": 64,
    "channels": 32,
    "ch_mult": (1, 1, 2, 2),
    "attn_resolutions": (8,),
    "latent_dim": 64,
    "codebook_size": 64,
    "transformer_width": 64,
    "transformer_heads": 4,
    "transformer_layers": 2,
    "transformer_mlp_width": 128,
    "kalman_blocks": 2,
    "kalman_heads": 4,
    "kalman_head_dim": 16,
    "cft_scales": (8, 16, 32),
    "cfa_scales": (8, 16),
    "cfa_heads": 2,
    "cfa_head_dim": 16,
}
TINY = SMALL | {
    "image_size": 32,
    "channels": 16,
    "ch_mult": (1, 2, 4),
    "latent_dim": 16,
    "codebook_size": 32,
    "transformer_width": 32,
    "kalman_blocks": 1,
    "kalman_gain_blocks": 1,
}


def build(name: str, flow: nn.Module | None = None, **options) -> Any:
    """A registered arch from a flat list of options, as an options file has it."""
    return ARCHS.spec({"type": name, **options}).build(**({} if flow is None else {"flow": flow}))


def by_rule(**options) -> KEEP:
    """The network of ``public_small.npz``: SMALL with the rule's weights."""
    model = build("KEEP", **(SMALL | options)).eval()
    shapes = to_public(model.state_dict(), "v0.1.0")
    model.load_state_dict(from_public({k: weight(k, tuple(v.shape)) for k, v in shapes.items()}))
    return model


def tiny(**options) -> KEEP:
    torch.manual_seed(0)
    return build("KEEP", **(TINY | options))


def tiny_file(folder: Path) -> Path:
    """The weight file of a tiny causal network with DIS, which names its network."""
    path, options = folder / "tiny.safetensors", TINY | {"temporal": "causal"}
    save_safetensors(tiny(temporal="causal"), path, {"type": "KEEP", **options, "flow": {"type": "dis"}})
    return path


def clip(
    frames: int, batch: int = 1, size: int = 32, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """LQ frames (batch, frames, 3, size, size) and their flows; the same numbers on every device."""
    generator = torch.Generator().manual_seed(1)
    lq = torch.rand(batch, frames, 3, size, size, generator=generator) * 2 - 1
    flows = torch.randn(batch, frames - 1, 2, size, size, generator=generator)
    return lq.to(device), flows.to(device)


PATCHES: dict[str, Any] = {"image_size": 64, "patch": 2}
"""Options with which TINY reads frames of 64×64 and keeps its feature maps."""
