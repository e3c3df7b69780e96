"""KEEP's weights, wherever they come from: recognised, given one naming, and loaded into a network of the right size.

Read: the public checkpoints (v0.1.0 and v1.0.0), BasicSR's ``params`` / ``params_ema``, our training checkpoints
and our safetensors files. See ``docs/weights.md``.
"""

import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn as nn
from pydantic import ValidationError
from torch import Tensor

import keep
from keep.archs.keep import KEEP
from keep.archs.public import Layout, from_public, has_prefixes, layout_of, to_public
from keep.archs.sizes import Arch, arch_of, infer_arch
from keep.config.registry import ARCHS, FLOWS
from keep.flow.gmflow import GMFlow
from keep.utils import weight_files
from keep.utils.downloads import fetch
from keep.utils.errors import UserError, nearest
from keep.utils.version import __version__

Params = Literal["ema", "online"]

RELEASES = "https://github.com/jnjaby/KEEP/releases/download"
PUBLISHED = {
    "KEEP": (f"{RELEASES}/v1.0.0/KEEP-b76feb75.pth", "b76feb75"),
    "KEEP_Asian": (f"{RELEASES}/v1.0.0/KEEP_Asian-4765ebe0.pth", "4765ebe0"),
    "KEEP_v0.1.0": (f"{RELEASES}/v0.1.0/KEEP-a1a14d46.pth", "a1a14d46"),
}
"""Name → address and first digits of the sha256 of the authors' files."""

SHIPPED = {"nano": Path(keep.__file__).with_name("pretrained") / "nano.safetensors"}
"""Name → file of the weights that come with this package; docs/small_models.md tells of them."""

DEFAULT = "nano"
"""What is used where no weights are named."""


@dataclass(frozen=True)
class Weights:
    """What a file holds, in our names.

    Attributes:
        state: the state dict of our :class:`KEEP`.
        arch: the network as ``{"type": "KEEP", **options}`` where the file says it, else None.
        layout: how the file names its tensors.
        params: which of the file's weights: ``params_ema``, ``params`` or ``bare``.
        path: the file.
    """

    state: dict[str, Tensor]
    arch: Arch | None
    layout: Layout
    params: str
    path: Path

    def describe(self) -> str:
        count = sum(v.numel() for v in self.state.values())
        return f"{self.path}: KEEP, layout {self.layout}, {self.params}, {count / 1e6:.2f} M numbers"


def load_keep(
    path_or_name: str | Path,
    params: Params = "ema",
    flow: nn.Module | str | Mapping[str, Any] | None = None,
    *,
    net: nn.Module | Mapping[str, Any] | None = None,
    cache: Path | None = None,
) -> KEEP:
    """The network of a weights file, of the right size, on the CPU, in evaluation mode.

    Args:
        path_or_name: a file, one of ``SHIPPED``, or one of ``PUBLISHED``, which is downloaded once.
        params: averaged (``ema``) or ``online`` weights, where the file has both.
        flow: a flow estimator to use in place of the file's: a module, or a name or mapping as in the options.
        net: the network, where the file does not say: an untrained one, which is filled, or ``{"type": "KEEP", …}``.
        cache: where downloads go; by default ``$KEEP_HOME`` or ``~/.cache/keep``.

    Raises:
        UserError: no such file, another network's weights, or a size that the file does not tell.
    """
    return network(read(path_or_name, params, cache), flow, net)


def network(
    weights: Weights,
    flow: nn.Module | str | Mapping[str, Any] | None = None,
    net: nn.Module | Mapping[str, Any] | None = None,
) -> KEEP:
    """The network with these weights. Arguments and errors as in :func:`load_keep`."""
    state, arch = weights.state, None
    if isinstance(net, nn.Module):
        built = net
    else:
        arch = dict(net) if net is not None else told_arch(weights)
        if flow is not None:
            arch["flow"] = None
        built = build_arch(arch, weights.path, state)
    if flow is not None:
        estimator = flow if isinstance(flow, nn.Module) else _build_flow(flow)
        built.flownet = estimator.requires_grad_(False).eval()
        own = {f"flownet.{k}": v for k, v in estimator.state_dict().items()}
        state = {k: v for k, v in state.items() if not k.startswith("flownet.")} | own
    weight_files.fill(built, state, weights.path)
    if arch is not None and flow is None:
        built.arch = arch  # type: ignore[assignment]  (plain data: what arch_of gives back)
    return built.eval()  # type: ignore[return-value]


def read(path_or_name: str | Path, params: Params = "ema", cache: Path | None = None) -> Weights:
    """The weights in a file, in our names, whatever layout it has. Arguments as in :func:`load_keep`."""
    path = find(path_or_name, cache)
    content = weight_files.load(path)
    state, which = _tensors(content, params)
    layout = layout_of(state)
    if layout is None:
        raise UserError(_refusal(content, state, path))
    arch = content.get("arch") if which != "bare" else None
    return Weights(
        state=dict(state) if layout == "ours" else from_public(state),
        arch=dict(arch) if isinstance(arch, Mapping) else None,
        layout=layout,
        params=which,
        path=path,
    )


def find(path_or_name: str | Path, cache: Path | None = None) -> Path:
    """The file: a path, or a name of ``SHIPPED`` or of ``PUBLISHED``; the latter is downloaded once."""
    path, name = Path(path_or_name).expanduser(), str(path_or_name)
    if path.is_file():
        return path
    if name in SHIPPED:
        return SHIPPED[name]
    if name in PUBLISHED:
        url, digest = PUBLISHED[name]
        return fetch(url, digest, url.rpartition("/")[2], cache)
    names = [*SHIPPED, *PUBLISHED]
    hint = "" if path.suffix else nearest(name, names) or f"; names of weights: {', '.join(names)}"
    raise UserError(f"there is no checkpoint {path}{hint}")


def save_safetensors(net: KEEP, path: str | Path, arch: Mapping[str, Any] | None = None) -> None:
    """Write a network as safetensors, whole or not at all; its options go along as JSON in the metadata.

    Args:
        net: the network.
        path: the file.
        arch: its options as ``{"type": "KEEP", …}``; by default what :func:`arch_of` finds.
    """
    write(Path(path), dict(net.state_dict()), dict(arch) if arch is not None else arch_of(net))


def write(path: Path, state: Mapping[str, Tensor], arch: Arch | None, layout: Layout = "ours") -> None:
    """Write weights in any layout; the suffix (``.safetensors``, else a torch file) says the format.

    Args:
        path: the file.
        state: in our names.
        arch: the network's options; required by ``ours``, and in the public layouts (which cannot say it) checked:
            only what the public code can run is written.
        layout: the names in the file.

    Raises:
        UserError: the public code could not run this network.
    """
    if layout != "ours":
        _check_public(state, arch)
        state = to_public(state, "v0.1.0" if layout == "public-v0.1.0" else "v1.0.0")
    about = {"arch": arch, "version": __version__} if layout == "ours" else {}
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
        raise UserError("this network works on patches of pixels (`patch`), which the public code does not know")
    flow = {k for k in state if k.startswith("flownet.")}
    with torch.device("meta"):
        if flow and flow != {f"flownet.{k}" for k in GMFlow().state_dict()}:
            raise UserError("this network's flow estimator is not GMFlow, the only one the public code knows")


# --- recognising ------------------------------------------------------------------------------------------------


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
    """In words, which network's weights a state dict holds, by its names."""
    names = {k.removeprefix("module.") for k in state}
    for what, prefixes in OTHERS:
        if has_prefixes(names, *prefixes):
            return what
    if names and all(k.startswith(DISCRIMINATOR_PREFIXES) for k in names):
        return "a discriminator"
    return "an unknown network"


def _tensors(content: Any, params: Params) -> tuple[Mapping[str, Tensor], str]:
    """The state dict inside a file's content and its key there; empty where there is none."""
    if params not in ("ema", "online"):
        raise UserError(f"params: {params!r} is neither 'ema' nor 'online'")
    try:
        return weight_files.network_state(content, "", params)
    except UserError:
        return {}, "none"


def _refusal(content: Any, state: Mapping[str, Tensor], path: Path) -> str:
    if isinstance(content, Mapping) and "optimizers" in content:
        return f"{path} is a training state, for --resume; the weights are beside it, in models/net_….pth"
    if not state:
        names = ", ".join(map(str, list(content)[:5])) if isinstance(content, Mapping) else type(content).__name__
        return f"{path} holds no weights (expected a checkpoint of KEEP); it holds: {names or 'nothing'}"
    with torch.device("meta"):
        ours = KEEP(flow=GMFlow()).state_dict()
    expected = ours if has_prefixes(state, "lq_encoder.") else to_public(ours)
    message = f"{path} looks like {looks_like(state)}; expected a checkpoint of KEEP"
    for verb, names in (("lacks", _beyond(expected, state)), ("has", _beyond(state, expected))):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            message += f"; it {verb} {', '.join(names[:3])}{more}"
    return message


def _beyond(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """The names that ``others`` lacks; the first of each part (``encoder``, ``cft``, …) before the rest."""
    others = set(others)
    parts = {name.partition(".")[0] for name in others}
    beyond = [name for name in names if name not in others]
    new = {name.partition(".")[0]: name for name in reversed(beyond) if name.partition(".")[0] not in parts}
    first = list(reversed(new.values()))
    return first + [name for name in beyond if name not in first]


# --- the network of the right size ------------------------------------------------------------------------------


def build_arch(arch: Arch, path: Path, state: Mapping[str, Tensor] | None = None) -> KEEP:
    """The untrained network that ``arch`` describes.

    Args:
        arch: ``{"type": …, **options}``.
        path: the file it is from, for messages.
        state: the file's weights in our names; a RAFT among them spares reading torchvision's own file.

    Raises:
        UserError: an arch, a flow estimator or an option that this version does not know.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            spec = ARCHS.spec(_with_own_raft(arch, state or {}, Path(folder)))
            return spec.build()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path} is of a network this version cannot build: {where}: {first['msg']}") from None


def _with_own_raft(arch: Arch, state: Mapping[str, Tensor], folder: Path) -> Arch:
    """``arch``, whose RAFT is built from the file's own weights: the file named in the options may not be here."""
    flow = arch.get("flow")
    flow = {"type": flow} if isinstance(flow, str) else flow
    prefix = "flownet.net."
    if not isinstance(flow, Mapping) or flow.get("type") != "raft" or not has_prefixes(state, prefix):
        return arch
    own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    weight_files.save(folder / "raft.pth", own)
    return {**arch, "flow": {**flow, "weights": folder / "raft.pth"}}


def _build_flow(flow: str | Mapping[str, Any]) -> nn.Module:
    try:
        return FLOWS.spec(flow).build()
    except ValidationError as error:
        raise UserError(f"flow: {error.errors(include_url=False)[0]['msg']}") from None


def told_arch(weights: Weights) -> Arch:
    """The network's options, as the file says them or, in a public file, as its shapes tell.

    Raises:
        UserError: a file of ours that does not say them (it may be causal), or shapes that do not tell.
    """
    if weights.arch is not None:
        return dict(weights.arch)
    if weights.layout == "ours":
        raise UserError(f"{weights.path} does not say which network it is of: name it (option `net`)")
    return infer_arch(weights.state, weights.path)
