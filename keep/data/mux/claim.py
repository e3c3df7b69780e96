"""The name under which a file is written until it is whole."""

import os
import re
import shutil
from pathlib import Path


def claim(path: Path) -> Path:
    """A hidden name of this process beside ``path``, with its suffix. What killed runs left of the same is removed."""
    own = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    pattern = re.compile(re.escape(f".{path.stem}.") + r"(\d+)" + re.escape(path.suffix))
    for file in path.parent.iterdir() if path.parent.is_dir() else ():
        match = pattern.fullmatch(file.name)
        if match and (file == own or not _alive(int(match[1]))):
            shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
    return own


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True
