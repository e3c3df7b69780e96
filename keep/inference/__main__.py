"""``keep-weights TOOL …``, also ``python -m keep.inference TOOL …``: tools for weight files."""

import sys
from collections.abc import Sequence

from keep.utils.subcommands import run_tool

TOOLS = {
    "convert": ("keep.inference.convert", "convert weights between this project's layout and the public ones"),
    "publish": ("keep.inference.publish", "write a network as the Hugging Face hub expects it, or upload it"),
}


def main(argv: Sequence[str] | None = None) -> int:
    return run_tool("keep-weights", "Work on files of KEEP's weights.", TOOLS, argv)


if __name__ == "__main__":
    sys.exit(main())
