"""Error models on disk: each belongs to one network's weights, and lies beside them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keep.archs.confidence import ConfidenceHead
from keep.archs.evidence import EVIDENCE
from keep.config.registry import ARCHS
from keep.inference.weights.reading import Params, find, read
from keep.utils import weight_files
from keep.utils.errors import UserError
from keep.utils.version import __version__


def path_of(weights: Path) -> Path:
    """The file of the error model of a weight file: ``NAME.confidence.safetensors`` beside it."""
    return weights.with_name(f"{weights.name.removesuffix(weights.suffix)}.confidence.safetensors")


def network_hash(weights: str | Path, params: Params = "ema", cache: Path | None = None) -> str:
    """A hash of the network's weights, the same in any file format; the arguments are those of ``read``."""
    return weight_files.checksum(read(weights, params, cache).state)


def maps_hash() -> str:
    """A hash of the names and meanings of the evidence maps."""
    return hashlib.sha256(json.dumps(EVIDENCE).encode()).hexdigest()


def save_confidence(
    head: ConfidenceHead, arch: Mapping[str, Any], path: Path, network: str, calibration: Mapping[str, Any]
) -> None:
    """Write a calibrated head.

    Args:
        head: the head.
        arch: its options, ``{"type": "ConfidenceHead", …}``.
        path: the file.
        network: :func:`network_hash` of the weights whose output it judges.
        calibration: what the calibration clips say, as plain data.
    """
    about = {"arch": json.dumps(arch), "network": network, "maps": maps_hash(), "calibration": json.dumps(calibration)}
    weight_files.save_safetensors(path, head.state_dict(), {"format": "pt", "version": __version__, **about})


def load_head(path: Path) -> tuple[ConfidenceHead, dict[str, Any]]:
    """A head on the CPU, in evaluation mode, and what its file says.

    Raises:
        UserError: no such file, no head, or one that reads other maps than :data:`keep.archs.evidence.EVIDENCE`.
    """
    content = weight_files.load(path)
    arch = content.get("arch") if isinstance(content, dict) else None
    if not isinstance(arch, Mapping) or arch.get("type") != "ConfidenceHead":
        raise UserError(f"{path}: not an error model")
    if content.get("maps") != maps_hash():
        raise UserError(f"{path}: reads other evidence than this version measures; train it again: docs/confidence.md")
    head = ARCHS.spec(dict(arch)).build()
    weight_files.fill(head, weight_files.network_state(content, path)[0], path)
    return head.eval().requires_grad_(False), {k: v for k, v in content.items() if not k.startswith("params")}


def load_confidence(weights: str | Path, params: Params = "ema", cache: Path | None = None) -> ConfidenceHead:
    """The error model of a network, on the CPU.

    Args:
        weights: the network's weights: a file, or a name.
        params: which of the file's weights.
        cache: folder of downloads.

    Raises:
        UserError: these weights have no error model, or that of other weights.
    """
    path = path_of(find(weights, cache))
    if not path.is_file():
        raise UserError(
            f"{weights}: there is no error model of these weights, {path.name} beside them; train one: "
            "docs/confidence.md, or use the default weights"
        )
    head, about = load_head(path)
    if about.get("network") != network_hash(weights, params, cache):
        raise UserError(f"{path}: was made for other weights than {weights}; train it again: docs/confidence.md")
    return head
