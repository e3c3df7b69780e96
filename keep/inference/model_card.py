"""The model card of a repository on the hub, written from what the weight file and the test know."""

import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import unquote

import yaml

from keep.utils.credentials import without_credentials
from keep.utils.downloads import sha256
from keep.utils.errors import UserError
from keep.utils.version import __version__

ABSOLUTE = re.compile(r"[/~]|file:|[a-z]:[\\/]|\\\\", re.IGNORECASE)
"""Start of an absolute path of Unix or Windows, or of an address of a local file."""

NOT_RECORDED = "The weight file does not record it."


def card(
    name: str,
    arch: Mapping[str, Any],
    about: Mapping[str, Any],
    numbers: int,
    scores: str | None = None,
    licence: str | None = None,
) -> str:
    """The card as Markdown.

    Args:
        name: of the model, for the title and the example: ORG/NAME on the hub, or a folder.
        arch: options of the network.
        about: what its file records, with keys of ``keep.inference.weights.reading.RECORDED``; any may be missing.
        numbers: parameters of the network.
        scores: Markdown of a test of these weights (:func:`read_scores`).
        licence: an identifier of the hub, e.g. ``cc-by-nc-4.0``, or words; None: not stated.
    """
    options, side = about.get("options") or {}, arch.get("image_size", 512)
    parts = [
        _front_matter(licence),
        f"# {name.rpartition('/')[2]}\n\n{arch.get('type', 'KEEP')}, Kalman-inspired feature propagation for video "
        f"face super-resolution: aligned faces of {side}×{side} pixels, {numbers / 1e6:.2f} M parameters.",
        f"```sh\nkeep-restore old.mp4 -o new.mp4 -w {f'hf://{name}' if '/' in name else name}\n```\n\n"
        f'```python\nfrom keep import KEEP\n\nnet = KEEP.from_pretrained("{name}")\n```',
        f"## Licence\n\n{licence or 'Not stated: ask the author before you use these weights.'}",
        f"## Training\n\n{_training(options, about)}",
        f"## Data\n\n{_yaml(options['data']) if options.get('data') else NOT_RECORDED}",
        f"## Scores\n\n{scores or 'Not measured.'}",
        f"## Versions\n\nTrained with KEEP {about.get('version', 'of an unknown version')}; written by {__version__}.",
        f"## Options\n\nThe network:\n\n{_yaml(arch)}",
    ]
    if options:
        parts.append(f"The run:\n\n{_yaml(options)}")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def read_scores(results: Path, weights: Path) -> str:
    """The tables of ``keep-test`` with their intervals, as Markdown below a heading.

    Args:
        results: folder of the test's results.
        weights: the file that is described; the test must have loaded it.

    Raises:
        UserError: no results, or results of other weights.
    """
    try:
        content = json.loads((results / "results.json").read_text(encoding="utf-8"))
        table = (results / "table.md").read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{results}: expected the folder of keep-test's results: {error}") from None
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict):
        raise UserError(f"{results}: results.json is not one of keep-test")
    if sha256(weights) not in files.values():
        tested = ", ".join(files) or "none"
        raise UserError(f"{results}: the scores are not of {weights}; files of that test: {tested}")
    body = table.partition("\n")[2].strip()
    return re.sub(r"^#", "##", body, flags=re.MULTILINE)


def _front_matter(licence: str | None) -> str:
    """The card's data for the hub's search."""
    data: dict[str, Any] = {"library_name": "keep-vfsr", "tags": ["video-super-resolution", "face-restoration", "keep"]}
    if licence and re.fullmatch(r"[a-z0-9.-]+", licence):
        data["license"] = licence
    elif licence:
        data |= {"license": "other", "license_name": licence}
    return f"---\n{yaml.safe_dump(data, sort_keys=False, allow_unicode=True)}---"


def _training(options: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """The stage, its length and what it started from."""
    if not options:
        return NOT_RECORDED
    train, data = options.get("train", {}), options.get("data", {})
    lines = [
        f"- recipe {options.get('model', {}).get('type')}, run `{options.get('name')}`, seed {options.get('seed')}",
        f"- {about.get('step')} of {train.get('iters')} steps of {data.get('clips_per_step') or 1} clips",
    ]
    for slot, digest in (about.get("pretrained") or {}).items():
        lines.append(f"- started from: {slot}, sha256 {digest}")
    return "\n".join(lines)


def _yaml(value: Any) -> str:
    layout: dict[str, Any] = {"sort_keys": False, "allow_unicode": True, "default_flow_style": None, "width": 110}
    return f"```yaml\n{yaml.safe_dump(without_folders(value), **layout)}```"


def without_folders(value: Any) -> Any:
    """``value`` with absolute paths reduced to their last part: they say much of a machine, and nothing of a model.

    Paths are those of Unix and Windows (``C:\\…``, ``\\\\server\\…``) and ``file:`` addresses. Other addresses lose
    their credentials.
    """
    if isinstance(value, Mapping):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(item) for item in value]
    if not isinstance(value, str):
        return value
    if not ABSOLUTE.match(value):
        return without_credentials(value)
    path = unquote(value) if value[:5].lower() == "file:" else value
    return PureWindowsPath(path).name if not path.startswith(("/", "~")) else PurePosixPath(path).name
