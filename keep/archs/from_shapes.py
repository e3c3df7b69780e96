"""Infers the options of a network from the shapes of its weights."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn as nn
from torch import Tensor

from keep.archs.blocks import Attention
from keep.archs.keep import KEEP
from keep.config.registry import dump
from keep.flow.gmflow import GMFlow
from keep.utils.errors import UserError

Arch = dict[str, Any]
"""A network as ``{"type": "KEEP", **options}``."""

HEADS = {"T_Q": {512: 8}, "Kalman filter network": {384: 8}, "CFA": {1024: 4}}
"""Attention heads of the released networks, by inner width. Shapes do not show how a width is split into heads."""


def infer_arch(
    state: Mapping[str, Tensor], path: Path | str = "the file", heads: Mapping[str, int] | None = None
) -> Arch:
    """The network's options, from the names and shapes of a state dict in our names.

    Shapes do not show the heads of attentions, the groups of GroupNorms, or whether gains are causal. Heads are taken
    from the released networks; groups are 32 and gains are over the clip, as in every public file.

    Args:
        state: a state dict in our names.
        path: its file, for messages.
        heads: known heads, with keys as in ``HEADS``.

    Raises:
        UserError: names are missing, or a width is not one of the released networks.
    """

    def split(part: str, width: int) -> int:
        count = (heads or {}).get(part) or HEADS[part].get(width)
        if count is None:
            raise UserError(f"{path}: the heads of its {part} ({width} wide) are unknown: name the network (`net`)")
        return count

    try:
        channels, inputs = state["lq_encoder.blocks.0.weight"].shape[:2]
        patch = math.isqrt(inputs // 3)
        scales = _encoder_scales(state)
        largest = math.isqrt(state["code_transformer.position_emb"].shape[0]) * 2 ** (len(scales) - 1)
        codes, latent_dim = state["codebook.embedding.weight"].shape
        width = state["code_transformer.position_emb"].shape[1]
        kalman_width = state["kalman_filter.uncertainty.0.attn1.to_q.weight"].shape[0]
        kalman_heads = split("Kalman filter network", kalman_width)
        cfa_scales = _numbers(state, "cfa.")
        cfa = {}
        if cfa_scales:
            cfa_width = state[f"cfa.{cfa_scales[0]}.attn.to_q.weight"].shape[0]
            cfa_heads = split("CFA", cfa_width)
            cfa = {"cfa_heads": cfa_heads, "cfa_head_dim": cfa_width // cfa_heads}
        return {
            "type": "KEEP",
            "image_size": largest * patch,
            "channels": channels,
            "ch_mult": [scale.widths[-1] // channels for scale in scales],
            "res_blocks": len(scales[0].widths),
            "attn_resolutions": [largest // 2**i for i, scale in enumerate(scales) if scale.attention],
            "latent_dim": latent_dim,
            "codebook_size": codes,
            "norm_groups": 32,
            "patch": patch,
            "transformer_width": width,
            "transformer_heads": split("T_Q", width),
            "transformer_layers": len(_numbers(state, "code_transformer.ft_layers.")),
            "transformer_mlp_width": state["code_transformer.ft_layers.0.linear1.weight"].shape[0],
            "kalman_blocks": len(_numbers(state, "kalman_filter.uncertainty.")),
            "kalman_heads": kalman_heads,
            "kalman_head_dim": kalman_width // kalman_heads,
            "kalman_gain_blocks": len(_numbers(state, "kalman_filter.gain.")) - 1,
            "temporal": "clip",
            "cft_scales": _numbers(state, "cft."),
            "cfa_scales": cfa_scales,
            **cfa,
            "flow": {"type": "GMFlow"} if "flownet.feature_flow_attn.q_proj.weight" in state else None,
        }
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(f"{path} is a checkpoint of KEEP with missing names, among them {error}") from None


@dataclass
class _Scale:
    """One scale of an encoder: widths of its residual blocks, and whether attention follows them."""

    widths: list[int]
    attention: bool = False


def _encoder_scales(state: Mapping[str, Tensor]) -> list[_Scale]:
    """The encoder's scales. Its blocks: conv; per scale residual blocks [+ attention] and downsampling; tail."""
    prefix = "lq_encoder.blocks."
    scales = [_Scale([])]
    for i in _numbers(state, prefix)[1:-5]:  # the tail: residual block, attention, residual block, norm, conv
        if f"{prefix}{i}.conv.weight" in state:
            scales.append(_Scale([]))
        elif f"{prefix}{i}.q.weight" in state:
            scales[-1].attention = True
        else:
            scales[-1].widths.append(state[f"{prefix}{i}.conv1.weight"].shape[0])
    return scales


def _numbers(names: Iterable[str], prefix: str) -> list[int]:
    """The numbers after ``prefix`` in the names, sorted."""
    found = {k.removeprefix(prefix).partition(".")[0] for k in names if k.startswith(prefix)}
    return sorted(int(n) for n in found)


def arch_of(net: KEEP) -> Arch:
    """The options of a network, ``{"type": "KEEP", …}``, as plain data: those of its file, else inferred.

    Raises:
        UserError: the network has no file and a flow estimator other than GMFlow, whose options cannot be inferred.
    """
    if isinstance(stored := getattr(net, "arch", None), Mapping):
        return dump(stored)
    if net.flownet is not None and not isinstance(net.flownet, GMFlow):
        raise UserError(f"the options of the flow estimator {type(net.flownet).__name__} are unknown: pass `arch`")
    # A GroupNorm has gcd(norm_groups, channels) groups: their least common multiple builds the same network.
    groups = [m.num_groups for m in net.modules() if isinstance(m, nn.GroupNorm)]
    return infer_arch(net.state_dict(), "the network", heads_of(net)) | {
        "norm_groups": math.lcm(*groups),
        "temporal": net.kalman_filter.temporal,
    }


def heads_of(net: KEEP) -> dict[str, int]:
    """Attention heads of a network by part; keys as in ``HEADS``."""
    heads = {
        "T_Q": [m.num_heads for m in net.code_transformer.modules() if isinstance(m, nn.MultiheadAttention)],
        "Kalman filter network": [m.heads for m in net.kalman_filter.modules() if isinstance(m, Attention)],
        "CFA": [m.heads for m in net.cfa.modules() if isinstance(m, Attention)],
    }
    return {part: found[0] for part, found in heads.items() if found}
