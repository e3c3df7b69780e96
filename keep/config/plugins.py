"""Imports that fill the registries: the rooms of this package, and files of the user."""

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path

from keep.utils.errors import UserError

ROOMS = (
    "archs", "flow", "losses", "metrics", "degradation", "data.datasets", "faces", "models", "baselines",
    "training.optimizers", "training.schedules",
)  # fmt: skip
"""The packages and modules below ``keep`` whose import registers names."""


def import_registered() -> None:
    """Import every room, so that all names are known."""
    for room in ROOMS:
        importlib.import_module(f"keep.{room}")


def load_plugin(path: Path) -> None:
    """Import a user's Python file; what it registers can then be named in the YAML."""
    name = f"keep_plugin_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return
    if not path.is_file():
        raise UserError(f"plugins: there is no file {path}")
    import_registered()
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"plugins: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except UserError:
        del sys.modules[name]
        raise
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UserError(f"plugins: {path} fails on import: {type(error).__name__}: {error}") from error
