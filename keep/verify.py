"""Check what a restored video says of its origin.

    python -m keep.verify restored.mp4

It checks the signature in the file (C2PA, extra ``sign``) and the record beside it (NAME.confidence.json), and shows
the words in its metadata. Exit status: 0: what was found fits the file; 1: neither signature nor record; 2: something
does not fit, or bad input.
"""  # fmt: skip

import sys
from collections.abc import Sequence

from keep.utils.starting import starting

with starting():
    from pathlib import Path

    from keep.config import cli
    from keep.inference.video.verifying import verify


def command(argv: Sequence[str] | None) -> int:
    parser = cli.Parser(prog="keep-verify", description="Check what a restored video says of its origin.")
    parser.add_argument("file", metavar="FILE", type=Path, help="the video")
    result, lines = verify(parser.parse_args(argv).file)
    print("\n".join(lines))
    return result


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
