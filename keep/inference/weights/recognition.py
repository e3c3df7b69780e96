"""Recognises which network a state dict belongs to, for messages about files that are not KEEP's."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from keep.archs.keep import KEEP
from keep.archs.public import has_prefixes, to_public
from keep.archs.sizes import Sizes
from keep.flow.gmflow import GMFlow

OTHERS = (
    ("a CodeFormer file", ("encoder.", "quantize.", "idx_pred_layer.")),
    ("a stage I VQGAN", ("encoder.", "codebook.", "generator.")),
    ("a stage I VQGAN in the public names", ("encoder.", "quantize.", "generator.")),
    ("GMFlow", ("backbone.", "transformer.layers.", "feature_flow_attn.")),
    ("RAFT", ("feature_encoder.", "update_block.")),
    ("RAFT", ("fnet.", "update_block.")),
    ("SPyNet", ("basic_module.",)),
)
DISCRIMINATOR_PREFIXES = ("net.", "main.", "conv.", "conv0.", "final_conv.")


def looks_like(state: Mapping[str, Tensor]) -> str:
    """The network that a state dict belongs to, in words, by its names."""
    names = {k.removeprefix("module.") for k in state}
    for what, prefixes in OTHERS:
        if has_prefixes(names, *prefixes):
            return what
    if names and all(k.startswith(DISCRIMINATOR_PREFIXES) for k in names):
        return "a discriminator"
    return "an unknown network"


def describe_mismatch(content: Any, state: Mapping[str, Tensor], path: Path) -> str:
    """Why a file is not a checkpoint of KEEP, in one line.

    Args:
        content: the content of the file.
        state: the state dict in it; empty if there is none.
        path: the file.
    """
    if isinstance(content, Mapping) and "optimizers" in content:
        return f"{path} is a training state, for --resume; its weights are in models/net_….pth of the same run"
    if not state:
        names = ", ".join(map(str, list(content)[:5])) if isinstance(content, Mapping) else type(content).__name__
        return f"{path} contains no weights (expected a checkpoint of KEEP); it contains: {names or 'nothing'}"
    with torch.device("meta"):
        ours = KEEP(Sizes(), flow=GMFlow()).state_dict()
    expected = ours if has_prefixes(state, "lq_encoder.") else to_public(ours)
    message = f"{path} looks like {looks_like(state)}; expected a checkpoint of KEEP"
    for verb, names in (("lacks", _difference(expected, state)), ("has", _difference(state, expected))):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            message += f"; it {verb} {', '.join(names[:3])}{more}"
    return message


def _difference(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """The names that ``others`` lacks. The first name of each missing part (``encoder``, ``cft``, …) comes first."""
    others = set(others)
    parts = {name.partition(".")[0] for name in others}
    missing = [name for name in names if name not in others]
    new = {name.partition(".")[0]: name for name in reversed(missing) if name.partition(".")[0] not in parts}
    first = list(reversed(new.values()))
    return first + [name for name in missing if name not in first]
