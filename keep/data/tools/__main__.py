"""``keep-data TOOL …``, also ``python -m keep.data.tools TOOL …``: make, check and show training data."""

import sys
from collections.abc import Sequence

from keep.utils.starting import starting

with starting():
    from keep.utils.subcommands import run_tool

TOOLS = {
    "quickstart": ("keep.data.tools.quickstart", "from a folder of videos to everything that training needs"),
    "align": ("keep.data.tools.align", "cut out the largest face of photographs and videos, aligned"),
    "collect": ("keep.data.tools.collect", "make aligned one-person clips from raw videos"),
    "prepare": ("keep.data.tools.prepare", "check a VFHQ tree, list its clips, write a smaller copy"),
    "pack": ("keep.data.tools.pack", "pack folders of clips into one file"),
    "splits": ("keep.data.tools.splits", "write degraded test splits to disk"),
    "preview": ("keep.data.tools.preview", "show what the network will see, and time the loader"),
}


def main(argv: Sequence[str] | None = None) -> int:
    return run_tool("keep-data", "Make, check and show the data that KEEP trains and tests on.", TOOLS, argv)


if __name__ == "__main__":
    sys.exit(main())
