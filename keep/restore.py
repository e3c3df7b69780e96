"""Restore the faces of videos.

    python -m keep.restore old.mp4 -o new.mp4                                     # with the shipped weights
    python -m keep.restore videos/ -o restored/ -w KEEP --compare
    torchrun --nproc-per-node 4 -m keep.restore videos/ -o restored/ -w KEEP      # videos are shared between 4 GPUs
    python -m keep.restore videos/ -o restored/ --engine ray                      # and between workers of Ray
"""  # fmt: skip

import sys
from collections.abc import Sequence

from keep.utils.starting import starting

with starting():
    from keep.config import cli
    from keep.inference.fast import keep_freed_memory
    from keep.inference.video import command, options
    from keep.utils.logging import to_console


def restore(argv: Sequence[str] | None) -> int:
    args = options.parse(argv)
    to_console()
    keep_freed_memory()
    return command.restore(args)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(restore, argv)


if __name__ == "__main__":
    sys.exit(main())
