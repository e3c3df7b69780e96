"""Writes weights of KEEP, in our layout or in the public ones."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import keep
from keep.archs.from_shapes import Arch, arch_of
from keep.archs.keep import KEEP
from keep.archs.public import Layout, to_public
from keep.flow.gmflow import GMFlow
from keep.utils import weight_files
from keep.utils.errors import UserError


def save_safetensors(net: KEEP, path: str | Path, arch: Mapping[str, Any] | None = None) -> None:
    """Write a network as safetensors, atomically. Its options are stored as JSON in the metadata.

    Args:
        net: the network.
        path: the file.
        arch: its options as ``{"type": "KEEP", …}``; by default the result of :func:`arch_of`.
    """
    write(Path(path), dict(net.state_dict()), dict(arch) if arch is not None else arch_of(net))


def write(path: Path, state: Mapping[str, Tensor], arch: Arch | None, layout: Layout = "ours") -> None:
    """Write weights in any layout. The suffix selects the format: ``.safetensors``, else a torch file.

    Args:
        path: the file.
        state: the weights, in our names.
        arch: the network's options. The layout ``ours`` needs and stores them. The public layouts cannot store them;
            there they are checked: only networks that the public code can run are written.
        layout: the naming of tensors in the file.

    Raises:
        UserError: the public code cannot run this network.
    """
    if layout != "ours":
        _check_public(state, arch)
        state = to_public(state, "v0.1.0" if layout == "public-v0.1.0" else "v1.0.0")
    about = {"arch": arch, "version": keep.__version__} if layout == "ours" else {}
    if path.suffix == ".safetensors":
        text = {k: v if isinstance(v, str) else json.dumps(v) for k, v in about.items()}
        weight_files.save_safetensors(path, state, {"format": "pt", "layout": layout, **text})
    elif layout == "public-v0.1.0":
        weight_files.save(path, dict(state))
    else:
        weight_files.save(path, {"params" if layout == "ours" else "params_ema": dict(state), **about})


def _check_public(state: Mapping[str, Tensor], arch: Arch | None) -> None:
    if arch is not None and arch.get("temporal") == "causal":
        raise UserError("this network's gains are causal; the public code would compute them over the clip instead")
    if arch is not None and arch.get("norm_groups", 32) != 32:
        raise UserError(f"this network's GroupNorms have {arch['norm_groups']} groups; the public code's have 32")
    if arch is not None and arch.get("patch", 1) != 1:
        raise UserError("this network works on patches of pixels (`patch`), which the public code cannot run")
    flow = {k for k in state if k.startswith("flownet.")}
    with torch.device("meta"):
        if flow and flow != {f"flownet.{k}" for k in GMFlow().state_dict()}:
            raise UserError("this network's flow estimator is not GMFlow, the only one that the public code can run")
