"""Names of files as a user writes them."""

from pathlib import Path

from keep.utils.errors import UserError


def expand(path: str | Path) -> Path:
    """``path`` with a leading ``~`` or ``~user`` replaced by the home folder.

    Raises:
        UserError: no such user, or no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: {str(error).rstrip('.')}; write the full path") from None
