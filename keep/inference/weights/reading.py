"""Finds weight files, and reads their tensors in our names."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

import keep
from keep.archs.from_shapes import Arch
from keep.archs.public import Layout, from_public, layout_of
from keep.inference.weights.config_file import check_config
from keep.inference.weights.recognition import describe_mismatch
from keep.utils import hub, weight_files
from keep.utils.downloads import fetch
from keep.utils.errors import UserError, nearest

Params = Literal["ema", "online"]

RELEASES = "https://github.com/jnjaby/KEEP/releases/download"
PUBLISHED = {
    "KEEP": (f"{RELEASES}/v1.0.0/KEEP-b76feb75.pth", "b76feb75"),
    "KEEP_Asian": (f"{RELEASES}/v1.0.0/KEEP_Asian-4765ebe0.pth", "4765ebe0"),
    "KEEP_v0.1.0": (f"{RELEASES}/v0.1.0/KEEP-a1a14d46.pth", "a1a14d46"),
}
"""Name → URL and first digits of the sha256 of the authors' files."""

SHIPPED = {name: Path(keep.__file__).with_name("pretrained") / f"{name}.safetensors" for name in ("lite", "nano")}
"""Name → file of the weights in this package; see docs/small_models.md."""

RECORDED = ("version", "step", "options", "pretrained")
"""What a checkpoint of a training records, beside tensors and the network's options."""

DEFAULT = "lite"
"""The weights that are used when none are named."""


@dataclass(frozen=True)
class Weights:
    """The content of a file, in our names.

    Attributes:
        state: the state dict of our :class:`keep.archs.keep.KEEP`.
        arch: the network as ``{"type": "KEEP", **options}`` if the file stores it, else None.
        layout: the naming of tensors in the file.
        params: which of the file's weights: ``params_ema``, ``params`` or ``bare``.
        path: the file.
        about: what the file records of its training, if anything: version, step, options, pretrained.
    """

    state: dict[str, Tensor]
    arch: Arch | None
    layout: Layout
    params: str
    path: Path
    about: dict[str, Any] = field(default_factory=dict)

    def describe(self) -> str:
        count = sum(v.numel() for v in self.state.values())
        return f"{self.path}: KEEP, layout {self.layout}, {self.params}, {count / 1e6:.2f} M numbers"


def read(path_or_name: str | Path, params: Params = "ema", cache: Path | None = None) -> Weights:
    """The weights in a file, in our names.

    Args:
        path_or_name: a file; a folder with a ``model.safetensors``; ``hf://ORG/NAME[@REVISION]`` on the Hugging Face
            hub; a name of ``SHIPPED``; or a name of ``PUBLISHED``, which is downloaded once.
        params: averaged (``ema``) or ``online`` weights, if the file has both.
        cache: folder of downloads; by default ``$KEEP_HOME`` or ``~/.cache/keep``.

    Raises:
        UserError: no such file, the weights of another network, or a ``config.json`` that contradicts them.
    """
    path = find(path_or_name, cache)
    content = weight_files.load(path)
    state, key = _tensors(content, params)
    layout = layout_of(state)
    if layout is None:
        raise UserError(describe_mismatch(content, state, path))
    arch = content.get("arch") if key != "bare" else None
    if isinstance(arch, Mapping):
        check_config(path_or_name, path, dict(arch), cache)
    return Weights(
        state=dict(state) if layout == "ours" else from_public(state),
        arch=dict(arch) if isinstance(arch, Mapping) else None,
        layout=layout,
        params=key,
        path=path,
        about=_about(content) if key != "bare" else {},
    )


def find(path_or_name: str | Path, cache: Path | None = None) -> Path:
    """The file of a path or name. Arguments as in :func:`read`.

    Raises:
        UserError: no such file or name.
    """
    path, name = hub.local_file(path_or_name, cache), str(path_or_name)
    if path.is_file():
        return path
    if name in SHIPPED:
        return SHIPPED[name]
    if name in PUBLISHED:
        url, digest = PUBLISHED[name]
        return fetch(url, digest, url.rpartition("/")[2], cache)
    if path.is_dir():
        raise UserError(f"{path}: the folder has no {hub.WEIGHTS}: name a weight file")
    names = [*SHIPPED, *PUBLISHED]
    hint = "" if path.suffix else nearest(name, names) or f"; names of weights: {', '.join(names)}"
    raise UserError(f"there is no checkpoint {path}{hint}")


def _about(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a file records of its training. Safetensors files hold it as text, JSON where it is no text itself."""
    found = {key: content[key] for key in RECORDED if content.get(key) is not None}
    for key in found.keys() - {"version"}:
        if isinstance(found[key], str):
            try:
                found[key] = json.loads(found[key])
            except ValueError:  # a file of another program
                del found[key]
    return found


def _tensors(content: Any, params: Params) -> tuple[Mapping[str, Tensor], str]:
    """The state dict in a file's content, and its key there. Empty if there is none."""
    if params not in ("ema", "online"):
        raise UserError(f"params: {params!r} is neither 'ema' nor 'online'")
    try:
        return weight_files.network_state(content, "", params)
    except UserError:
        return {}, "none"
