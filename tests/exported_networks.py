"""Small networks to export, in which every part matters."""

from typing import Any

import torch
from networks import TINY, build

from keep.archs.keep import KEEP


def lively(**options: Any) -> KEEP:
    """A tiny network, few layers deep, whose CFT and CFA are not the identity."""
    torch.manual_seed(0)
    net = build("KEEP", **{**TINY, "res_blocks": 1, "transformer_layers": 1, **options}).eval()
    with torch.no_grad():
        for scale in net.cfa:
            net.get_parameter(f"cfa.{scale}.norm1.weight").fill_(0.5)
        for parameter in net.cft.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return net
