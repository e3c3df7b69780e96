"""Imports that fill the registries: the rooms of this package, and files of the user."""

import hashlib
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path

from keep.utils.errors import UserError

ROOMS = (
    "archs", "flow", "losses", "metrics", "degradation", "data.datasets", "faces", "models", "baselines",
    "training.optimizers", "training.schedules", "training.trackers",
)  # fmt: skip
"""The packages and modules below ``keep`` whose import registers names."""


def import_registered() -> None:
    """Import every room, so that all names are known."""
    for room in ROOMS:
        importlib.import_module(f"keep.{room}")


def load_plugin(path: Path, where: str = "") -> None:
    """Import a user's Python file; what it registers can then be named in the YAML.

    Args:
        path: the file.
        where: the line of the options that names it, for errors.

    Raises:
        UserError: no such file, or it fails on import: with the line of the file that fails.
    """
    name = f"keep_plugin_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return
    title = f"{where}  plugins".strip()
    if not path.is_file():
        raise UserError(f"{title}: there is no file {path}")
    import_registered()
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{title}: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        reason = f"{type(error).__name__}: {error}" if not isinstance(error, UserError) else str(error)
        reason = " ".join(reason.split())
        raise UserError(f"{title}: {path}:{_failing_line(error, path)} fails on import: {reason}") from error


def _failing_line(error: BaseException, path: Path) -> int:
    """The line of ``path`` that raised ``error``, itself or in what it calls."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno or 1
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno or 1 for frame in reversed(frames) if frame.filename == str(path)), 1)
