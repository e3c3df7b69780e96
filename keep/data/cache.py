"""Low-quality clips cached on disk: degraded once, then read."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from keep.utils.errors import UserError, plain
from keep.utils.io import write_file
from keep.utils.paths import expand

FORMAT = 2


class LQCache:
    """A folder of low-quality clips, one PNG per sample, for one seed and one set of options.

    Its ``cache.json`` stores seed and options; a folder of others raises an error. Files are written atomically, so
    that several workers and processes can fill one folder together.

    Args:
        folder: of the cache; created with the first clip.
        about: everything that the low-quality clips depend on, as plain JSON data.
    """

    def __init__(self, folder: str | Path, about: Mapping[str, Any]) -> None:
        self.folder, self.about = expand(folder), {"format": FORMAT, **about}
        self._seed: int | None = None

    def open(self, seed: int) -> None:
        """Raise UserError unless the folder is empty or has this seed and these options."""
        if seed == self._seed:
            return
        wanted = json.loads(json.dumps({"seed": seed, **self.about}))
        path = self.folder / "cache.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                write_file(path, json.dumps(wanted, indent=1))
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"lq_cache: {path}: cannot be used: {error}") from None
        if found != wanted:
            raise UserError(
                f"lq_cache: {self.folder} holds clips of other options: {difference(found, wanted)}; "
                "delete it, or choose another folder"
            )
        self._seed = seed

    def path(self, position: int, drawn: str, source: np.ndarray) -> Path:
        """The file of one sample.

        Args:
            position: of the sample.
            drawn: everything that was drawn for it, as text.
            source: the frames that are degraded: a clip that is replaced under the same name gets another file.
        """
        own = hashlib.blake2b(drawn.encode(), digest_size=8)
        own.update(np.ascontiguousarray(source).data)
        return self.folder / f"{position // 1000:06d}" / f"{position:09d}_{own.hexdigest()}.png"

    def get(self, path: Path, frames: int) -> np.ndarray | None:
        """The clip in a file of :meth:`path`, uint8 (T, h, w, 3) RGB; None if it is missing or unusable."""
        image = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.exists() else None
        if image is None or len(image) % frames:
            return None
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).reshape(frames, -1, *image.shape[1:])

    def put(self, path: Path, clip: np.ndarray) -> None:
        """Store uint8 (T, h, w, 3) RGB, its frames stacked vertically in one PNG."""
        strip = cv2.cvtColor(clip.reshape(-1, *clip.shape[2:]), cv2.COLOR_RGB2BGR)
        data = cv2.imencode(".png", strip, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
        try:
            write_file(path, data)
        except OSError as error:
            raise UserError(f"lq_cache: {path}: cannot write: {error}") from None


def describe(value: Any) -> Any:
    """A built object as plain JSON data: its class and its attributes."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [describe(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): describe(v) for k, v in value.items()}
    if hasattr(value, "__dict__"):
        return {"type": type(value).__name__, **{k: describe(v) for k, v in sorted(vars(value).items())}}
    return str(value)


def difference(found: Any, wanted: Any, where: str = "") -> str:
    """The first difference of two pieces of JSON data, as text."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        pairs: Any = [(k, found.get(k), wanted.get(k)) for k in {**wanted, **found}]
    elif isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        pairs = [(i, *pair) for i, pair in enumerate(zip(found, wanted, strict=True))]
    else:
        return f"{where.lstrip('.')} is {plain(found)} in the cache, {plain(wanted)} now"
    return next((difference(a, b, f"{where}.{k}") for k, a, b in pairs if a != b), "nothing")


def digest(value: Any) -> str:
    """A short hash of JSON data."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
