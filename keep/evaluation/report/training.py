"""What a row was trained on, and for how long: from the options of the test, or from the weight file of the row."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keep.utils import weight_files
from keep.utils.errors import UserError


def training_of(restorer: Any) -> str:
    """Data and budget of the run that wrote the restorer's weight file, in one line; "" if no file stores them."""
    for file in getattr(restorer, "files", None) or ():
        try:
            content = weight_files.load(file)
        except UserError:  # a file in a format that only its restorer reads
            continue
        if isinstance(content, Mapping) and (line := budget(content)):
            return line
    return ""


def budget(content: Mapping[str, Any]) -> str:
    """The same from the content of a weight file; "" if it does not store its run."""
    options, step = _plain(content.get("options")), _plain(content.get("step"))
    try:
        data = options["data"]
        clips = data["clips_per_step"] or (data["batch_size"] or 1) * (options["train"]["accumulate"] or 1)
        frames = data["train"]["clip_length"]
        start = ", ".join(f"{slot} {_path(given)}" for slot, given in options["pretrained"].items())
        size = data["train"].get("size")
        text = f"{options['model']['type']}, {step} steps × {clips} clips × {frames} frames of {size} px of "
        text += ", ".join(dict.fromkeys(_roots(data["train"])))
    except (KeyError, TypeError, AttributeError):
        return ""
    return text + (f", from {start}" if start else "")


def _plain(value: Any) -> Any:
    """Metadata of a .safetensors file is text: JSON, where it is no plain text."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _path(given: Any) -> Path:
    return Path(given["path"] if isinstance(given, Mapping) else given)


def _roots(data: Mapping[str, Any]) -> list[str]:
    """The folders or files of a dataset, those of all its parts if it is a mixture."""
    own = [str(data["root"])] if data.get("root") else []
    return own + [root for part in data.get("datasets", ()) for root in _roots(part)]
