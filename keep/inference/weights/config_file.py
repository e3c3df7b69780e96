"""The ``config.json`` beside published weights: it must describe the same network."""

import json
from pathlib import Path

from keep.archs.compare import option_differences
from keep.archs.from_shapes import Arch
from keep.utils import hub
from keep.utils.errors import UserError, plain
from keep.utils.paths import expand


def check_config(name: str | Path, weights: Path, arch: Arch, cache: Path | None = None) -> None:
    """Compare the ``config.json`` of a folder or repository, if it has one, with the network of its weights.

    Args:
        name: of the weights, as given by the user.
        weights: their file.
        arch: the network of the weights.
        cache: folder of the hub's files.

    Raises:
        UserError: it describes another network, or none.
    """
    path = _config_file(name, weights, cache)
    if path is None:
        return
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not the config.json of a model: {error}") from None
    given = config.get("arch") if isinstance(config, dict) else None
    if not isinstance(given, dict):
        raise UserError(f"{path}: it has no mapping `arch`")
    rows = [
        f"{option} is {plain(a)} in the weights and {plain(b)} in it"
        for option, a, b in option_differences(arch, given)
    ]
    if rows:
        raise UserError(f"{path}: another network than the weights: {'; '.join(rows)}")


def _config_file(name: str | Path, weights: Path, cache: Path | None) -> Path | None:
    """The file, or None: weights that were named directly, and repositories without it."""
    address, beside = hub.parse(name), weights.with_name(hub.CONFIG)
    if address is None:
        return beside if expand(name).is_dir() and beside.is_file() else None
    if address.file != hub.WEIGHTS:
        return None
    if beside.is_file():  # of the same revision, without asking the hub again
        return beside
    try:
        return hub.fetch(hub.Address(address.repo, hub.CONFIG, address.revision), cache)
    except UserError:
        return None
