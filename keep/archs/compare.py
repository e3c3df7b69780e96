"""Compares the network that weights were trained as with the network that they are loaded into.

Shapes alone do not distinguish all networks.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn as nn
from pydantic import ValidationError
from torch import Tensor

from keep.archs.from_shapes import Arch, heads_of, infer_arch
from keep.archs.keep import KEEP
from keep.archs.public import from_public, layout_of
from keep.config.registry import ARCHS, FLOWS
from keep.utils.errors import UserError

SAME_RESULT = {"type", "checkpoint_decoder", "checkpoint_encoder"}
"""Keys of an arch that do not change the results of its weights."""
FLOW_FILES = {"weights", "random_weights"}
"""Options of a flow estimator that only locate its weights."""
PUBLIC: Arch = {"type": "KEEP", "temporal": "clip", "norm_groups": 32}
"""Options of every public file of KEEP, for any sizes."""

Difference = tuple[str, Any, Any]
"""An option, its value in the file, and its value in the network to fill."""


def stored_options(content: Mapping[str, Any], state: Mapping[str, Tensor]) -> Arch | None:
    """The network that a file's weights were trained as; None if it is unknown.

    Args:
        content: the content of the file; ours store ``arch``.
        state: its weights, in the file's names, which identify a public file of KEEP.
    """
    if isinstance(arch := content.get("arch"), Mapping):
        return dict(arch)
    if (layout_of(state) or "ours") == "ours":
        return None
    try:
        return infer_arch(from_public(state))
    except UserError:  # not the released widths: the heads cannot be inferred
        return PUBLIC


def option_differences(stored: Mapping[str, Any], built: Mapping[str, Any]) -> Iterator[Difference]:
    """The options that both networks have, with different values. Both are ``{"type": …, **options}``."""
    stored, built = _complete(stored), _complete(built)
    for name in sorted((stored.keys() & built.keys()) - SAME_RESULT):
        ours, theirs = stored[name], built[name]
        if name == "flow":
            ours, theirs = _flow(ours), _flow(theirs)
            if ours is None or theirs is None:
                continue  # a network without an estimator gets its flows from outside
        if ours != theirs:
            yield name, ours, theirs


def module_differences(stored: Mapping[str, Any], net: KEEP) -> Iterator[Difference]:
    """The differences for a network that is built: all properties that change results but no shapes."""
    with torch.device("meta"):
        expected = _facts(ARCHS.spec({**stored, "flow": None}).build())
    own = _facts(net)
    yield from ((name, value, own[name]) for name, value in expected.items() if value != own[name])
    flow = _flow(stored.get("flow"))
    if flow is not None and net.flownet is not None and not isinstance(net.flownet, FLOWS[flow["type"]]):
        yield "flow", flow["type"], type(net.flownet).__name__


def _facts(net: KEEP) -> dict[str, Any]:
    heads = {f"heads of the {part}": count for part, count in heads_of(net).items()}
    parts = [part for name, part in net.named_children() if name != "flownet"]
    groups = [m.num_groups for part in parts for m in part.modules() if isinstance(m, nn.GroupNorm)]
    return {"temporal": net.kalman_filter.temporal, **heads, "groups of the norms": groups}


def _complete(arch: Mapping[str, Any]) -> Mapping[str, Any]:
    """``arch`` with defaults for missing options, unless it is only a part of an arch."""
    if arch is PUBLIC or arch.get("type") not in ARCHS:
        return arch
    try:
        return ARCHS.spec(arch).dump()
    except ValidationError:  # an option of another version
        return arch


def _flow(value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    options = FLOWS.spec(value).dump() if not isinstance(value, Mapping) or value.get("type") in FLOWS else dict(value)
    return {k: v for k, v in options.items() if k not in FLOW_FILES}
