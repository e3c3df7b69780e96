"""Loads the files named in ``pretrained`` into a recipe, and refuses weights that were trained as another network."""

from collections.abc import Mapping
from typing import Any

import torch

from keep.config.registry import dump
from keep.config.schema import PretrainedOptions, TrainConfig
from keep.models.base import Recipe, differences_from_file
from keep.utils import hub, weight_files
from keep.utils.downloads import sha256
from keep.utils.errors import UserError, nearest, plain
from keep.utils.logging import log


def load_pretrained(recipe: Recipe, config: TrainConfig) -> dict[str, str]:
    """Load the files named in ``pretrained`` into the recipe's slots, and log what each of them filled.

    Returns:
        Slot → sha256 of its file.

    Raises:
        UserError: an unknown slot, a required slot without a file, a file of another network.
    """
    slots, files = recipe.slots(), {}
    for name in config.pretrained:
        if name not in slots:
            hint = nearest(name, slots) or f"; known: {', '.join(slots) or 'none'}"
            raise UserError(f"pretrained.{name}: {config.model.type} has no such slot{hint}")
    for name, slot in slots.items():
        given = config.pretrained.get(name)
        if given is None:
            if slot.required:
                raise UserError(f"{config.model.type} needs {slot.what}: set pretrained.{name} to its checkpoint")
            continue
        source = given if isinstance(given, PretrainedOptions) else PretrainedOptions(path=given)
        try:
            path = hub.local_file(source.path)
        except UserError as error:
            raise UserError(f"pretrained.{name}: {error}") from None
        if not path.is_file():
            raise UserError(
                f"{config.model.type} needs {slot.what}, but there is no file {source.path}: "
                f"train that stage first, or set pretrained.{name} to its checkpoint"
            )
        content = weight_files.load(path)
        state, which = weight_files.network_state(content, path)
        try:
            filled = slot.fill(recipe, state, path, source.parts)
        except UserError as error:
            raise UserError(f"pretrained.{name}: {error}") from None
        check_same_network(name, source, content, state, dump(config.model.options.get(slot.network)))
        files[name] = sha256(path)
        log.info(f"pretrained.{name}: {which} of {hub.shown(source.path)}, sha256 {files[name]}")
        log.info(f"  {describe_filled(recipe, slot.network, filled)}")
        if any(key.startswith("flownet.") for key in filled):
            log.info("  the flow estimator's weights are those of this file")
    return files


def check_same_network(
    name: str, source: PretrainedOptions, content: Any, state: Mapping[str, torch.Tensor], built: Any
) -> None:
    """Raise UserError if a file's weights were trained as another network than the options build, beyond shapes."""
    if not isinstance(content, Mapping) or not isinstance(built, Mapping):
        return
    differences = [row for row in differences_from_file(content, state, built) if row[0] not in source.allow]
    if differences:
        rows = [
            f"{option} is {plain(ours)} in the file and {plain(theirs)} in the options"
            for option, ours, theirs in differences
        ]
        options, shown = ", ".join(option for option, _, _ in differences), hub.shown(source.path)
        raise UserError(
            f"pretrained.{name}: {shown} was trained as another network: {'; '.join(rows)}. Use the file's "
            f"values, or allow the difference: pretrained.{name}: {{path: {shown}, allow: [{options}]}}"
        )


def describe_filled(recipe: Recipe, network: str, filled: list[str]) -> str:
    """How much of a network a file filled, and which of its parts it did not; ``filled``: names of tensors."""
    module = recipe.get_submodule(network)
    own = module.state_dict()
    size, total = (sum(own[k].numel() for k in names) / 1e6 for names in (filled, own))
    empty = {k.split(".")[0] for k in own} - {k.split(".")[0] for k in filled}
    parts = [k for k, _ in module.named_children() if k in empty]
    line = f"filled {len(filled)} of {len(own)} tensors of {network}, {size:.2f} of {total:.2f} M numbers"
    return line + (f"; not {', '.join(parts)}" if parts else "")
