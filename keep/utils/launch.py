"""Rank of this process, as a launcher (torchrun, SLURM, a job array) sets it in the environment."""

import os

from keep.utils.errors import UserError

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


def launched_ranks(complete: bool = False) -> tuple[int, int, int]:
    """Rank of this process, number of processes, rank on its machine; (0, 1, 0) without a launcher.

    Args:
        complete: the processes communicate, so with ``WORLD_SIZE`` the others must be set, and without it they are
            ignored. False: each has its default.

    Raises:
        UserError: a variable is missing or not a number, or the rank is not below the number of processes.
    """
    given = {name: os.environ[name] for name in NAMES if name in os.environ}
    if complete and "WORLD_SIZE" not in given:
        return 0, 1, 0
    try:
        defaults = {} if complete else dict(zip(NAMES, "010", strict=True))
        rank, world, local = (int((defaults | given)[name]) for name in NAMES)
    except (KeyError, ValueError):
        raise UserError(f"the launcher must set {', '.join(NAMES)} to numbers; got {given}") from None
    if not 0 <= rank < world:
        raise UserError(f"RANK={rank} must be at least 0 and less than WORLD_SIZE={world}")
    return rank, world, local
