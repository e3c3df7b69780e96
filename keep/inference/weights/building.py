"""Builds the network that a weight file belongs to, and loads the weights into it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch.nn as nn
from torch import Tensor

from keep.archs.compare import module_differences, option_differences
from keep.archs.from_shapes import Arch, heads_of, infer_arch
from keep.archs.keep import KEEP
from keep.archs.public import has_prefixes
from keep.config.registry import ARCHS, FLOWS, Spec
from keep.flow.gmflow import GMFlow
from keep.flow.raft import RAFT
from keep.inference.weights.reading import Params, Weights, read
from keep.utils import weight_files
from keep.utils.errors import UserError, plain
from keep.utils.validation import checked


def load_keep(
    path_or_name: str | Path,
    params: Params = "ema",
    flow: nn.Module | str | Mapping[str, Any] | None = None,
    *,
    net: nn.Module | Mapping[str, Any] | None = None,
    cache: Path | None = None,
) -> KEEP:
    """The network of a weight file, of the right size, on the CPU, in evaluation mode.

    Args:
        path_or_name: a file, a name of ``SHIPPED``, or a name of ``PUBLISHED``, which is downloaded once.
        params: averaged (``ema``) or ``online`` weights, if the file has both.
        flow: a flow estimator that replaces the file's: a module, or a name or mapping as in the options.
        net: the network, if the file does not store its options: an untrained module, which is filled, or
            ``{"type": "KEEP", …}``.
        cache: folder of downloads; by default ``$KEEP_HOME`` or ``~/.cache/keep``.

    Raises:
        UserError: no such file, the weights of another network, or a network that cannot be inferred from the file.
    """
    return build_network(read(path_or_name, params, cache), flow, net)


def build_network(
    weights: Weights,
    flow: nn.Module | str | Mapping[str, Any] | None = None,
    net: nn.Module | Mapping[str, Any] | None = None,
) -> KEEP:
    """The network with these weights. Arguments and errors as in :func:`load_keep`."""
    state, arch = weights.state, None
    if isinstance(net, nn.Module):
        built = net
    else:
        arch = dict(net) if net is not None else stored_arch(weights)
        if flow is not None:
            arch["flow"] = None
        built = build_arch(arch, weights.path, state)
    if flow is not None:
        estimator = flow if isinstance(flow, nn.Module) else _build_flow(flow)
        built.flownet = estimator.requires_grad_(False).eval()
        own = {f"flownet.{k}": v for k, v in estimator.state_dict().items()}
        state = {k: v for k, v in state.items() if not k.startswith("flownet.")} | own
    weight_files.fill(built, state, weights.path)
    if net is not None and isinstance(built, KEEP):
        _check_same_network(weights, built, net, own_flow=flow is not None)
    if arch is not None and flow is None:
        built.arch = arch  # type: ignore[assignment]  (plain data that arch_of returns)
    return built.eval()  # type: ignore[return-value]


def _check_same_network(weights: Weights, built: KEEP, net: nn.Module | Mapping[str, Any], own_flow: bool) -> None:
    """Raise UserError if the weights were trained as another network than ``net``, also where shapes are equal."""
    stored = weights.arch
    if stored is None and weights.layout != "ours":
        try:
            stored = infer_arch(weights.state, weights.path)
        except UserError:  # not the released widths: the heads cannot be inferred
            stored = infer_arch(weights.state, weights.path, heads_of(built))
    if stored is None:
        return
    differences = option_differences(stored, net) if isinstance(net, Mapping) else module_differences(stored, built)
    rows = [
        f"{option} is {plain(ours)} in the file and {plain(theirs)} in the given network"
        for option, ours, theirs in differences
        if not (own_flow and option == "flow")
    ]
    if rows:
        raise UserError(
            f"{weights.path} was trained as another network: {'; '.join(rows)}. Omit `net`, or use the values of the "
            "file"
        )


def stored_arch(weights: Weights) -> Arch:
    """The network's options: those stored in the file or, for a public file, inferred from the shapes.

    Raises:
        UserError: a file in our layout without options (its gains may be causal), or shapes that are ambiguous.
    """
    if weights.arch is not None:
        return dict(weights.arch)
    if weights.layout == "ours":
        raise UserError(f"{weights.path} does not store which network it belongs to: name it (option `net`)")
    return infer_arch(weights.state, weights.path)


def build_arch(arch: Arch, path: Path, state: Mapping[str, Tensor], cls: type[KEEP] = KEEP) -> KEEP:
    """The untrained network that ``arch`` describes.

    Args:
        arch: ``{"type": …, **options}``.
        path: the file of ``arch``, for messages.
        state: the file's weights in our names. RAFT and GMFlow take their weights from them: the file that their
            options name may not exist here.
        cls: the class to build in place of KEEP.

    Raises:
        UserError: an arch, a flow estimator or an option that this version does not have.
    """
    with checked(f"{path}: this version cannot build its network"):
        spec = ARCHS.spec(arch)
    flow = spec.options.get("flow")
    own = {k.removeprefix("flownet.net."): v for k, v in state.items() if k.startswith("flownet.net.")}
    if own and isinstance(flow, Spec) and flow.cls is RAFT:
        raft = RAFT.from_state(own, flow.options["size"], path)
        spec = replace(spec, options={**spec.options, "flow": raft})
    elif isinstance(flow, Spec) and flow.cls is GMFlow and has_prefixes(state, "flownet."):
        spec = replace(spec, options={**spec.options, "flow": replace(flow, options={**flow.options, "weights": None})})
    return (replace(spec, cls=cls) if spec.cls is KEEP else spec).build()


def _build_flow(flow: str | Mapping[str, Any]) -> nn.Module:
    with checked("flow"):
        return FLOWS.spec(flow).build()
