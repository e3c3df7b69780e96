"""Options files that the package ships: found by name where no file on disk has that name.

``keep/options`` is a link to the checkout's ``options/``; a wheel holds the files themselves.
"""

import difflib
import os
from pathlib import Path

from keep.utils.paths import expand

FOLDER = Path(__file__).parents[1] / "options"


def find(path: Path, name: str | Path) -> Path:
    """``path`` if it exists, otherwise the shipped file ``name``, otherwise ``path``.

    Args:
        path: the file on disk that ``name`` stands for.
        name: as the user wrote it: ``tiny/stage1.yml`` or ``options/tiny/stage1.yml``.
    """
    if os.path.exists(path):  # noqa: PTH110, Path.exists raises for a name that is too long
        return path
    parts = _parts(name)
    shipped = FOLDER.joinpath(*parts)  # FOLDER is dropped where the name is absolute
    inside = shipped.is_relative_to(FOLDER) and ".." not in parts
    return shipped if inside and os.path.isfile(shipped) else path  # noqa: PTH113, the same


def near(name: str | Path) -> str:
    """``"; did you mean tiny/stage1.yml or …?"`` for shipped files with a similar name; else the shipped folders.

    ``""`` for an absolute name, which can be no shipped file.
    """
    if expand(name).is_absolute():
        return ""
    files = [p.relative_to(FOLDER).as_posix() for p in sorted(FOLDER.glob("*/*.yml")) if not p.name.startswith("_")]
    wanted = "/".join(_parts(name))[:100]
    close = difflib.get_close_matches(wanted, files, n=3, cutoff=0.6)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; the package has options in {', '.join(dict.fromkeys(f.partition('/')[0] + '/' for f in files))}"


def _parts(name: str | Path) -> tuple[str, ...]:
    """The parts of a name below the folder of options."""
    parts = expand(name).parts
    return parts[1:] if parts[:1] == ("options",) else parts
