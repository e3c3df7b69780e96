"""Converts weights between our names and others: the authors' checkpoints, CodeFormer, and stage I to stage II."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from torch import Tensor

from keep.utils.errors import UserError

Layout = Literal["ours", "public-v1.0.0", "public-v0.1.0"]
"""The naming of KEEP's tensors in a file."""

# public prefix → ours; v0.1.0 has cross_fuse and fuse_convs_dict where v1.0.0 has cfa and cft
PREFIXES = {
    "encoder.": "lq_encoder.",
    "quantize.": "codebook.",
    "position_emb": "code_transformer.position_emb",
    "feat_emb.": "code_transformer.feat_emb.",
    "ft_layers.": "code_transformer.ft_layers.",
    "idx_pred_layer.": "code_transformer.idx_pred_layer.",
    "kalman_filter.uncertainty_estimator.": "kalman_filter.uncertainty.",
    "kalman_filter.kalman_gain_calculator.": "kalman_filter.gain.",
    "flownet.model.": "flownet.",
}
V010_PREFIXES = {"cross_fuse.": "cfa.", "fuse_convs_dict.": "cft."}

# The gain network's last convolution. In public weights the gain is the weight of ẑ⁻, in the paper that of z̃.
# sigmoid(-a) = 1 - sigmoid(a), so negating the layer converts exactly, in both directions.
LAST_GAIN_LAYER = re.compile(r"kalman_filter\.gain\.\d+\.(weight|bias)")


def layout_of(names: Iterable[str]) -> Layout | None:
    """The layout of a state dict with these names; None if it is not KEEP's."""
    names = set(names)
    if has_prefixes(names, "lq_encoder.", "kalman_filter.uncertainty.", "code_transformer."):
        return "ours"
    if has_prefixes(names, "encoder.", "kalman_filter.uncertainty_estimator.", "idx_pred_layer."):
        return "public-v0.1.0" if any(has_prefixes(names, p) for p in V010_PREFIXES) else "public-v1.0.0"
    return None


def has_prefixes(names: Iterable[str], *prefixes: str) -> bool:
    """Whether each prefix starts at least one of the names."""
    return all(any(name.startswith(prefix) for name in names) for prefix in prefixes)


def from_public(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """A public checkpoint of KEEP (v0.1.0 or v1.0.0, bare or under ``params_ema``) as a state dict of our KEEP."""
    renamed = {_rename(key, PREFIXES | V010_PREFIXES): value for key, value in state.get("params_ema", state).items()}
    return {key: -value if LAST_GAIN_LAYER.fullmatch(key) else value for key, value in renamed.items()}


def to_public(state: Mapping[str, Tensor], layout: Literal["v0.1.0", "v1.0.0"] = "v1.0.0") -> dict[str, Tensor]:
    """The inverse of :func:`from_public`: a bare state dict in the public ``layout``."""
    prefixes = PREFIXES | (V010_PREFIXES if layout == "v0.1.0" else {})
    inverse = {ours: public for public, ours in prefixes.items()}
    return {_rename(key, inverse): -value if LAST_GAIN_LAYER.fullmatch(key) else value for key, value in state.items()}


def from_vqgan(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of KEEP from a stage I VQGAN: codebook, generator, and the encoder as both E_H and E_L.

    Args:
        state: a VQGAN, in our names or in the public ones (CodeFormer's stage I has ``quantize`` for ``codebook``).

    Raises:
        UserError: a complete CodeFormer or public KEEP. Its ``encoder`` reads degraded images: it cannot be E_H.
    """
    if any(key.startswith("idx_pred_layer.") for key in state):
        raise UserError(
            "these are weights of a complete CodeFormer or KEEP, whose 'encoder' reads degraded images; "
            "use the file of stage I, the VQGAN alone"
        )
    state = {_rename(key, {"quantize.": "codebook."}): value for key, value in state.items()}
    result = {key: value for key, value in state.items() if not key.startswith("encoder.")}
    for key in state.keys() - result.keys():
        inner = key.removeprefix("encoder.")
        result[f"hq_encoder.{inner}"] = result[f"lq_encoder.{inner}"] = state[key]
    return result


def from_codeformer(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of KEEP from a complete CodeFormer: E_L, T_Q, codebook and generator, in our names.

    CodeFormer has the same names as the public KEEP. Its feature transformation (``fuse_convs_dict``) is skipped: it
    acts at other scales. Such a file has no E_H, which is the encoder of CodeFormer's stage I VQGAN.
    """
    return from_public({key: value for key, value in state.items() if not key.startswith("fuse_convs_dict.")})


def _rename(key: str, prefixes: Mapping[str, str]) -> str:
    for old, new in prefixes.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key
