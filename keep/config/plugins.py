"""What registers names: the packages of this project, and files of the user."""

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path

from keep.utils.errors import UserError


def import_registered() -> None:
    """Import the packages and modules that register names."""
    for package in (
        "archs", "flow", "losses", "metrics", "degradation", "data.datasets", "faces", "models", "baselines",
        "training.schedules",
    ):  # fmt: skip
        importlib.import_module(f"keep.{package}")


def load_plugin(path: Path) -> None:
    """Import a user's Python file, so that what it registers can be named in the YAML."""
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
